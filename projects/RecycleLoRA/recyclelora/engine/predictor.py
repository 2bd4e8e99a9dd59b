"""The function from images to logits that evaluation calls, with merged adapters."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from recyclelora.adapters import merged
from recyclelora.evaluation.sliding_window import Predict, check_logits


@contextlib.contextmanager
def predictor(model: nn.Module, *, dtype: torch.dtype = torch.float32) -> Iterator[Predict]:
    """Yield ``predict(images (B, 3, H, W), RGB 0..255) -> logits (B, classes, H, W)`` in float32.

    Inside the block the model is in eval mode with merged adapters, and is as fast as the plain
    ViT. After it, the model has its previous mode and the previous bits of every weight.

    Parameters
    ----------
    model : nn.Module
        A segmentor with ``semantic_logits``, not wrapped in DDP.
    dtype : torch.dtype
        Of autocast; float32 disables autocast.

    Raises
    ------
    ValueError
        In ``predict``, if the logits are not finite.
    """
    device = next(model.parameters()).device
    training = model.training
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def predict(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), autocast:
            logits = model.semantic_logits(images.to(device)).float()
        check_logits(logits, dtype)
        return logits

    model.eval()
    try:
        with merged(model):
            yield predict
    finally:
        model.train(training)
