"""From logits to class maps, at the size that is scored, in little memory."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# So many logits are resized at a time: 64 MB in float32.
_AT_ONCE = 2**24


class View(NamedTuple):
    """The logits of one look at an image, by rows from top to bottom.

    Args:
        size: (h, w) of all rows together.
        rows: logits (C, n, w), as many as make h; what was seen flipped is flipped back already.
    """

    size: tuple[int, int]
    rows: Iterable[Tensor]


def class_map(views: Iterable[View], count: int, size: tuple[int, int]) -> Tensor:
    """The best class of an image that was looked at ``count`` times, (H, W) uint8.

    The logits of each view are resized bilinearly to ``size`` (H, W). Those of one view alone
    decide by themselves; of several, the softmax over classes is averaged, as mmsegmentation's
    ``SegTTAModel`` does with whatever its heads return, which for Mask2Former too are not
    logarithms but sums of probabilities. The lowest class wins a tie.

    One view is never in memory as a whole. Several are added up in one float32 map of C x H x W.
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
    """Logits (C, h, w) resized bilinearly to ``size`` (H, W), and their argmax there, uint8.

    One class at a time: all of them at 20 megapixels would be 1.5 GB. The lowest class wins a tie.
    """
    return _first_best(
        F.interpolate(plane, size=size, mode="bilinear", align_corners=False)[0, 0]
        for plane in logits[:, None, None]
    )


def resized_rows(
    rows: Iterable[Tensor], size: tuple[int, int], wanted: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """Bilinear resizing (corners not aligned) of logits that come row by row.

    Args:
        rows: (C, n, w) from top to bottom, h rows in all.
        size, wanted: (h, w) and (H, W).

    Yields:
        (the next row, logits (C, n, W)), H rows in all.
    """
    height, width = wanted
    # Each row lies between two of the given ones.
    places = (torch.arange(height, dtype=torch.float64) + 0.5) * (size[0] / height) - 0.5
    places = places.clamp(min=0)
    above = places.long().clamp(max=size[0] - 1)
    below = (above + 1).clamp(max=size[0] - 1)
    weights = (places - above)[:, None]
    done = top = 0  # rows given on; the first of the given ones still here
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
        # The next row needs at most the last of these.
        done, top, kept = ready, top + kept.shape[1] - 1, kept[:, -1:].clone()


def in_parts(logits: Tensor) -> Iterator[Tensor]:
    """(C, h, w) by rows, few enough at a time to be resized in little memory."""
    yield from logits.split(max(1, _AT_ONCE // (len(logits) * logits.shape[2])), 1)


def _first_best(planes: Iterable[Tensor]) -> Tensor:
    """The index of the largest of the planes (H, W), the first of equals, uint8."""
    best, prediction = None, None
    for index, plane in enumerate(planes):
        if best is None:
            best, prediction = plane.clone(), torch.zeros_like(plane, dtype=torch.uint8)
        else:
            prediction.masked_fill_(plane > best, index)
            torch.maximum(best, plane, out=best)
    return prediction
