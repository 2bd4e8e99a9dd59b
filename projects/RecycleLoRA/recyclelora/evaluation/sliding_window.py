"""Sliding-window inference: overlapping windows in batches, with averaged logits."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recyclelora.common.tensor_file import is_finite

Predict = Callable[[Tensor], Tensor]


class NonFiniteLogitsError(ValueError):
    """The logits contain NaN or infinity."""


def check_logits(logits: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise an error if logits contain NaN or infinity, which an argmax would hide.

    Parameters
    ----------
    logits : Tensor
        The logits.
    dtype : torch.dtype, optional
        The dtype in which they were computed, for the message; by default that of ``logits``.

    Raises
    ------
    NonFiniteLogitsError
        If a value is not finite.
    """
    if is_finite(logits):
        return
    dtype = dtype or logits.dtype
    remedy = "the weights or the activations overflow; use another checkpoint"
    if dtype == torch.float16:
        remedy = (
            "use float32 or bfloat16 (train.amp.dtype), whose range is larger, or another "
            "checkpoint"
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

    A window starts every ``stride`` pixels. The last window of a row or column is shifted back so
    that it lies inside the image. Where windows overlap, logits are averaged with equal weights. An
    image smaller than the crop is a single window of its own size, without padding.

    Parameters
    ----------
    predict : Callable
        Function from images (N, 3, h, w) to logits (N, C, h, w).
    images : Tensor
        Images (B, 3, H, W).
    crop, stride : int or tuple of int
        Size and stride of the windows in pixels: one number or (height, width).
    batch : int
        The number of windows per call of ``predict``. It changes the result only by the rounding
        inside ``predict``.

    Returns
    -------
    Tensor
        Logits (B, C, H, W), float32 (float64 if ``predict`` returns float64), on the device of the
        outputs of ``predict``.

    Raises
    ------
    ValueError
        If ``predict`` returns logits of another shape or logits that are not finite.

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
    """Yield the logits of :func:`sliding_window_logits` in bands of complete rows.

    Memory holds only one band of the height of a window, whatever the size of the image.

    Parameters
    ----------
    predict, images, crop, stride, batch
        See :func:`sliding_window_logits`.

    Yields
    ------
    tuple of int, int and Tensor
        The index of the image, the index of the band's first row, and logits (C, rows, W). The
        bands of each image come from top to bottom, one image after another.
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
    # All windows in reading order, so that the sums are computed in the published order.
    windows = [(i, y, x) for i in range(len(images)) for y in tops for x in lefts]
    coverage = _coverage(tops, size[0], height)[:, None] * _coverage(lefts, size[1], width)
    band, place = None, (0, 0)  # sums of the rows that the current windows cover
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
    """Return the logits of a group of windows after checking them."""
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
    """Return the first pixel of each window along one side."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - crop), 0) for i in range(count)]


def _coverage(starts: list[int], size: int, length: int) -> Tensor:
    """Return the number of windows along one side that cover each pixel."""
    coverage = torch.zeros(length)
    for start in starts:
        coverage[start : start + size] += 1
    return coverage
