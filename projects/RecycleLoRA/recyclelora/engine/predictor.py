"""The model as evaluation wants it: a plain function from images to logits, adapters merged."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from recyclelora.adapters import merged


@contextlib.contextmanager
def predictor(
    model: nn.Module, *, dtype: torch.dtype = torch.float32
) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Yield ``predict(images (B, 3, H, W), RGB 0..255) -> logits (B, classes, H, W)`` in float32.

    Inside the block the model is in eval mode with its adapters merged, so it is as fast as the
    plain ViT; afterwards every weight has its bits back and the training mode is as before.

    Args:
        model: a segmentor with ``semantic_logits``, not wrapped in DDP.
        dtype: autocast dtype; float32 means no autocast.
    """
    device = next(model.parameters()).device
    training = model.training
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def predict(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), autocast:
            return model.semantic_logits(images.to(device)).float()

    model.eval()
    try:
        with merged(model):
            yield predict
    finally:
        model.train(training)
