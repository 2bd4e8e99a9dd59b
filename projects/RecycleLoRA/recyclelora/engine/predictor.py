"""The function from images to logits for evaluations, with merged adapters."""

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import nn

from recyclelora.adapters import merged
from recyclelora.adapters.switches import of_this_thread, set_in_this_thread
from recyclelora.evaluation.sliding_window import Predict, check_logits

from .compilation import eager

_CALLS = 4  # at once on a CPU; each needs memory for the masks of its image


@contextlib.contextmanager
def predictor(model: nn.Module, *, dtype: torch.dtype = torch.float32) -> Iterator[Predict]:
    """Yield a function that predicts logits with a model whose adapters are merged.

    Inside the ``with`` block, the model is in eval mode with merged adapters and is as fast as the
    plain ViT. After the block, its mode and every bit of its weights are as before.

    Parameters
    ----------
    model : nn.Module
        A segmentor with ``semantic_logits``, not wrapped in DDP.
    dtype : torch.dtype
        The dtype of autocast; float32 disables autocast.

    Yields
    ------
    Callable
        Function from images (B, 3, H, W), RGB 0..255, to logits (B, classes, H, W) in float32. On
        the CPU, up to four threads may call it at once (``concurrent_calls``). They compute with
        the adapters that are on in this thread.

    Raises
    ------
    ValueError
        If the logits are not finite. The yielded function raises this error.
    """
    device = next(model.parameters()).device
    training = model.training
    owner, switches = threading.current_thread(), of_this_thread()

    def predict(images: torch.Tensor) -> torch.Tensor:
        if threading.current_thread() is not owner:
            set_in_this_thread(switches)
        autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
        with torch.inference_mode(), autocast:
            logits = model.semantic_logits(images.to(device)).float()
        check_logits(logits, dtype)
        return logits

    predict.concurrent_calls = min(torch.get_num_threads(), _CALLS) if device.type == "cpu" else 1
    model.eval()
    try:
        with merged(model), eager(model):
            yield predict
    finally:
        model.train(training)
