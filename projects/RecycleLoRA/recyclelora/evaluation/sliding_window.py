"""Sliding-window inference: overlapping windows in batches, logits averaged."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recyclelora.common.tensor_file import is_finite

Predict = Callable[[Tensor], Tensor]


class NonFiniteLogitsError(ValueError):
    """Logits hold NaN or infinity."""


def check_logits(logits: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise if logits hold NaN or infinity, which an argmax would count as some class.

    Parameters
    ----------
    logits : Tensor
    dtype : torch.dtype, optional
        In which they were computed, for the message; that of ``logits`` by default.

    Raises
    ------
    NonFiniteLogitsError
    """
    if is_finite(logits):
        return
    dtype = dtype or logits.dtype
    remedy = "the weights or the activations overflow; use another checkpoint"
    if dtype == torch.float16:
        remedy = (
            "use float32 or bfloat16 (train.amp.dtype), which overflow later, or another checkpoint"
        )
    raise NonFiniteLogitsError(
        f"expected finite logits, got NaN or infinity, computed in {str(dtype).partition('.')[2]}: "
        f"{remedy}"
    )


@torch.no_grad()
def sliding_window_logits(
    predict: Predict,
    images: Tensor,
    crop: int | tuple[int, int],
    stride: int | tuple[int, int],
    batch: int = 1,
) -> Tensor:
    """Return logits of images from overlapping windows, as mmsegmentation's ``slide_inference``.

    Windows start every ``stride`` pixels; the last of a row or column is shifted back inside the
    image. Where windows overlap, logits are averaged with equal weights. Images smaller than the
    crop are one window of their own size, without padding.

    Parameters
    ----------
    predict : Callable
        (N, 3, h, w) -> (N, C, h, w).
    images : Tensor
        (B, 3, H, W).
    crop, stride : int or tuple of int
        Pixels, one number or (height, width).
    batch : int
        Number of windows per call of ``predict``. It changes the result only by the rounding of
        ``predict``.

    Returns
    -------
    Tensor
        (B, C, H, W) float32 (float64 if ``predict`` returns float64) on the device of its outputs.

    Raises
    ------
    ValueError
        If ``predict`` returns logits of another shape, or logits that are not finite.

    Examples
    --------
    >>> predict = torch.nn.Conv2d(3, 19, 3, padding=1)
    >>> sliding_window_logits(predict, torch.rand(1, 3, 100, 150), 64, 43, batch=4).shape
    torch.Size([1, 19, 100, 150])
    """
    logits = None
    for index, top, rows in finished_rows(predict, images, crop, stride, batch):
        if logits is None:
            shape = (len(images), len(rows), *images.shape[-2:])
            logits = torch.empty(shape, dtype=rows.dtype, device=rows.device)
        logits[index, :, top : top + rows.shape[1]] = rows
    return logits


@torch.no_grad()
def finished_rows(
    predict: Predict,
    images: Tensor,
    crop: int | tuple[int, int],
    stride: int | tuple[int, int],
    batch: int = 1,
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the logits of :func:`sliding_window_logits` in bands of rows that are complete.

    Only a band of the height of a window is in memory, for images of any size.

    Yields
    ------
    tuple of int, int and Tensor
        Image, index of its first row in the band, logits (C, rows, W); image after image, from top
        to bottom.
    """
    crop, stride = _pair(crop), _pair(stride)
    if batch < 1 or min(crop) < 1 or not all(0 < s <= c for s, c in zip(stride, crop, strict=True)):
        raise ValueError(
            "windows need a batch of at least 1 and 0 < stride <= crop, got "
            f"batch {batch}, crop {crop}, stride {stride}; correct the protocol"
        )
    height, width = images.shape[-2:]
    size = min(crop[0], height), min(crop[1], width)
    tops = _starts(height, crop[0], stride[0])
    lefts = _starts(width, crop[1], stride[1])
    # All windows of one image in reading order, so that sums have the published order.
    windows = [(i, y, x) for i in range(len(images)) for y in tops for x in lefts]
    coverage = _coverage(tops, size[0], height)[:, None] * _coverage(lefts, size[1], width)
    band, place = None, (0, 0)  # the sums of the rows under the windows of this image and top
    for first in range(0, len(windows), batch):
        group = windows[first : first + batch]
        for (i, y, x), window in zip(group, _predicted(predict, images, group, size), strict=True):
            if band is None:
                dtype = torch.promote_types(window.dtype, torch.float32)
                shape = (len(window), size[0], width)
                band = torch.zeros(shape, dtype=dtype, device=window.device)
                coverage = coverage.to(band)
            if (i, y) != place:
                top = place[1]
                done = y - top if i == place[0] else size[0]
                yield place[0], top, band[:, :done] / coverage[top : top + done]
                band[:, : size[0] - done] = band[:, done:].clone()
                band[:, size[0] - done :] = 0
                place = i, y
            band[:, :, x : x + size[1]] += window
    yield *place, band / coverage[place[1] :]


def _predicted(predict: Predict, images: Tensor, group: list, size: tuple[int, int]) -> Tensor:
    """Return the logits of a group of windows."""
    crops = [images[i, :, y : y + size[0], x : x + size[1]] for i, y, x in group]
    output = predict(torch.stack(crops))
    if output.ndim != 4 or (len(output), *output.shape[2:]) != (len(group), *size):
        raise ValueError(
            f"predict must turn ({len(group)}, 3, {size[0]}, {size[1]}) into logits "
            f"({len(group)}, C, {size[0]}, {size[1]}), got {tuple(output.shape)}"
        )
    check_logits(output)
    return output


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _starts(length: int, crop: int, stride: int) -> list[int]:
    """Return the first pixel of every window along one side."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - crop), 0) for i in range(count)]


def _coverage(starts: list[int], size: int, length: int) -> Tensor:
    """Return the number of windows along one side that cover each pixel."""
    coverage = torch.zeros(length)
    for start in starts:
        coverage[start : start + size] += 1
    return coverage
