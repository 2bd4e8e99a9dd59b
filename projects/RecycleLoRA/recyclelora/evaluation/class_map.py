"""Computation of class maps from logits, at the size of the label and with little memory."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# The number of logits that are resized at a time: 64 MB in float32.
_AT_ONCE = 2**24


class View(NamedTuple):
    """The logits of one view of an image, in bands of rows.

    A view is the image at one scale, possibly mirrored.

    Parameters
    ----------
    size : tuple of int
        The height and width (h, w) of all bands together.
    rows : Iterable[Tensor]
        Logits (C, n, w) from top to bottom, h rows in total. The logits of a mirrored image are
        mirrored back.
    """

    size: tuple[int, int]
    rows: Iterable[Tensor]


def class_map(views: Iterable[View], count: int, size: tuple[int, int]) -> Tensor:
    """Return the class map of an image from the logits of its views.

    The logits of each view are resized bilinearly to ``size``. For several views, the softmax over
    the classes is averaged, as in mmsegmentation's ``SegTTAModel``. That class applies the softmax
    to the output of any head, including Mask2Former's sums of probabilities.

    A single view is never completely in memory. Several views are summed in one float32 map
    (C, H, W).

    Parameters
    ----------
    views : Iterable[View]
        The views of the image.
    count : int
        The number of views.
    size : tuple of int
        The height and width (H, W) of the class map.

    Returns
    -------
    Tensor
        The class map (H, W), uint8. If several classes have the largest value, the lowest class is
        chosen.
    """
    total, prediction = None, None
    for view in views:
        for top, rows in resized_rows(view.rows, view.size, size):
            if prediction is None:
                prediction = torch.zeros(size, dtype=torch.uint8, device=rows.device)
            place = slice(top, top + rows.shape[1])
            if count == 1:
                prediction[place] = _first_best(rows)
                continue
            if total is None:
                total = torch.zeros((len(rows), *size), device=rows.device)
            total[:, place] += rows.float().softmax(0)
    return prediction if total is None else _first_best(total)


def best_class(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize logits bilinearly and return their argmax.

    The classes are resized one at a time, because all resized classes together would take 1.5 GB
    for an image of 20 megapixels.

    Parameters
    ----------
    logits : Tensor
        The logits (C, h, w).
    size : tuple of int
        The height and width (H, W) of the class map.

    Returns
    -------
    Tensor
        The class map (H, W), uint8. If several classes have the largest logit, the lowest class is
        chosen.
    """
    return _first_best(
        F.interpolate(plane, size=size, mode="bilinear", align_corners=False)[0, 0]
        for plane in logits[:, None, None]
    )


def resized_rows(
    rows: Iterable[Tensor], size: tuple[int, int], wanted: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """Resize logits that arrive in bands of rows, bilinearly and without aligned corners.

    Parameters
    ----------
    rows : Iterable[Tensor]
        Logits (C, n, w) from top to bottom, h rows in total.
    size, wanted : tuple of int
        The height and width of the input (h, w) and of the output (H, W).

    Yields
    ------
    tuple of int and Tensor
        The index of the first row of a band and its logits (C, n, W), H rows in total.
    """
    height, width = wanted
    if size == wanted:
        # Interpolation would return the same values but double the time spent outside the model.
        top = 0
        for part in itertools.chain.from_iterable(map(in_parts, rows)):
            yield top, part
            top += part.shape[1]
        return
    # Each output row is interpolated between two input rows.
    places = (torch.arange(height, dtype=torch.float64) + 0.5) * (size[0] / height) - 0.5
    places = places.clamp(min=0)
    above = places.long().clamp(max=size[0] - 1)
    below = (above + 1).clamp(max=size[0] - 1)
    weights = (places - above)[:, None]
    done = top = 0  # number of yielded rows; first input row in memory
    kept = None
    for part in rows:
        wide = F.interpolate(
            part[None], size=(part.shape[1], width), mode="bilinear", align_corners=False
        )[0]
        kept = wide if kept is None else torch.cat([kept, wide], 1)
        ready = int((below < top + kept.shape[1]).sum())
        step = max(1, _AT_ONCE // (len(kept) * width))
        for first in range(done, ready, step):
            last = min(first + step, ready)
            pair = [kept[:, (i[first:last] - top).to(kept.device)] for i in (above, below)]
            yield first, torch.lerp(*pair, weights[first:last].to(kept))
        # The next output row needs no input row before the last one.
        done, top, kept = ready, top + kept.shape[1] - 1, kept[:, -1:].clone()


def in_parts(logits: Tensor) -> Iterator[Tensor]:
    """Split logits (C, h, w) into bands of rows that can be resized with little memory.

    Parameters
    ----------
    logits : Tensor
        The logits.

    Yields
    ------
    Tensor
        Logits (C, n, w), from top to bottom.
    """
    yield from logits.split(max(1, _AT_ONCE // (len(logits) * logits.shape[2])), 1)


def _first_best(planes: Iterable[Tensor]) -> Tensor:
    """Return the index of the largest plane (H, W) at each pixel, uint8; ties go to the first."""
    best, prediction = None, None
    for index, plane in enumerate(planes):
        if best is None:
            best, prediction = plane.clone(), torch.zeros_like(plane, dtype=torch.uint8)
        else:
            prediction.masked_fill_(plane > best, index)
            torch.maximum(best, plane, out=best)
    return prediction
