"""Class maps with a confidence for each pixel, and the logits if they are wanted."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .class_map import View, resized_rows


class ScoredMap(NamedTuple):
    """The class map of an image, and how much the model scores its classes.

    Parameters
    ----------
    classes : Tensor
        (H, W) uint8, the class of the largest logit.
    confidence : Tensor
        (H, W) float32 from 0 to 1: the score of that class divided by the sum over all classes.
        Mask2Former's scores are sums over queries of class probability times mask probability, so
        they are not negative. It is 0 where every score is 0.
    logits : Tensor or None
        (C, H, W) float32.
    """

    classes: Tensor
    confidence: Tensor
    logits: Tensor | None


def scored_whole(logits: Tensor, size: tuple[int, int], *, keep_logits: bool) -> ScoredMap:
    """Resize logits (C, h, w) bilinearly to ``size`` (H, W), one class at a time."""
    planes = (
        F.interpolate(plane, size=size, mode="bilinear", align_corners=False)[0, 0]
        for plane in logits[:, None, None]
    )
    if not keep_logits:
        return ScoredMap(*_reduced(planes), None)
    resized = torch.stack(list(planes))
    return ScoredMap(*_reduced(resized), resized)


def scored_views(
    views: Iterable[View], count: int, size: tuple[int, int], *, keep_logits: bool
) -> ScoredMap:
    """Return the scored map of an image with ``count`` views, as :func:`class_map` does.

    For several views ``logits`` are the averaged softmax, whose argmax is the class, and the
    confidence is the mean over the views of the confidence in that class.
    """
    classes = confidence = kept = shares = None
    for view in views:
        for top, rows in resized_rows(view.rows, view.size, size):
            place = slice(top, top + rows.shape[1])
            if classes is None:
                classes = torch.zeros(size, dtype=torch.uint8, device=rows.device)
                confidence = torch.zeros(size, device=rows.device)
                if keep_logits or count > 1:
                    kept = torch.zeros((len(rows), *size), device=rows.device)
                if count > 1:
                    shares = torch.zeros_like(kept)
            if count == 1:
                classes[place], confidence[place] = _reduced(rows.float())
                if kept is not None:
                    kept[:, place] = rows
            else:
                kept[:, place] += rows.float().softmax(0) / count
                shares[:, place] += _shares(rows.float()) / count
    if shares is not None:
        classes = _reduced(kept)[0]
        confidence = shares.gather(0, classes[None].long())[0]
    return ScoredMap(classes, confidence, kept if keep_logits else None)


def _shares(scores: Tensor) -> Tensor:
    return scores / scores.sum(0).clamp_min(torch.finfo(torch.float32).tiny)


def _reduced(planes: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The class (the first of equal ones) and the confidence of score planes (H, W)."""
    best = total = classes = None
    for index, plane in enumerate(planes):
        if best is None:
            best, total = plane.clone(), plane.clone()
            classes = torch.zeros_like(plane, dtype=torch.uint8)
        else:
            classes.masked_fill_(plane > best, index)
            torch.maximum(best, plane, out=best)
            total += plane
    confidence = best / total.clamp_min(torch.finfo(torch.float32).tiny)
    return classes, confidence.clamp(0, 1)
