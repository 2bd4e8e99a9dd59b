"""Class maps from logits, at the size that is scored, with little memory."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Number of logits that are resized at a time: 64 MB in float32.
_AT_ONCE = 2**24


class View(NamedTuple):
    """The logits of one view of an image (a scale, possibly mirrored), in bands of rows.

    Parameters
    ----------
    size : tuple of int
        (h, w) of all rows together.
    rows : Iterable[Tensor]
        Logits (C, n, w) from top to bottom, h rows in all. Logits of a mirrored image are mirrored
        back.
    """

    size: tuple[int, int]
    rows: Iterable[Tensor]


def class_map(views: Iterable[View], count: int, size: tuple[int, int]) -> Tensor:
    """Return the class map (H, W) uint8 of an image with ``count`` views.

    The logits of each view are resized bilinearly to ``size`` (H, W). For several views the softmax
    over classes is averaged, as in mmsegmentation's ``SegTTAModel``. It applies the softmax to any
    output of a head, also to Mask2Former's sums of probabilities. Of equal classes the lowest is
    returned.

    A single view is never in memory completely. Several are summed in one float32 map (C, H, W).
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
    """Resize logits (C, h, w) bilinearly to ``size`` (H, W) and return their argmax, uint8.

    Classes are resized one at a time: all of them would take 1.5 GB at 20 megapixels. Of equal
    classes the lowest is returned.
    """
    return _first_best(
        F.interpolate(plane, size=size, mode="bilinear", align_corners=False)[0, 0]
        for plane in logits[:, None, None]
    )


def resized_rows(
    rows: Iterable[Tensor], size: tuple[int, int], wanted: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """Resize logits bilinearly (corners not aligned) that arrive in bands of rows.

    Parameters
    ----------
    rows : Iterable[Tensor]
        (C, n, w) from top to bottom, h rows in all.
    size, wanted : tuple of int
        (h, w) and (H, W).

    Yields
    ------
    tuple of int and Tensor
        Index of the first row and logits (C, n, W), H rows in all.
    """
    height, width = wanted
    if size == wanted:
        # Interpolation would return the same values, in half of the time outside the model.
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
    done = top = 0  # rows yielded; first input row in memory
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
        # The next output row needs at most the last input row.
        done, top, kept = ready, top + kept.shape[1] - 1, kept[:, -1:].clone()


def in_parts(logits: Tensor) -> Iterator[Tensor]:
    """Split logits (C, h, w) into bands of rows that can be resized with little memory."""
    yield from logits.split(max(1, _AT_ONCE // (len(logits) * logits.shape[2])), 1)


def _first_best(planes: Iterable[Tensor]) -> Tensor:
    """Return the index of the largest of the planes (H, W), the first of equal ones, uint8."""
    best, prediction = None, None
    for index, plane in enumerate(planes):
        if best is None:
            best, prediction = plane.clone(), torch.zeros_like(plane, dtype=torch.uint8)
        else:
            prediction.masked_fill_(plane > best, index)
            torch.maximum(best, plane, out=best)
    return prediction
