"""Class maps with the uncertainty of each pixel.

Mask2Former classifies masks. Query q of Q predicts class probabilities p_q(c), a softmax whose
no-object class is left out, and a mask probability m_q(x) at pixel x. The score of class c is

    s_c(x) = sum_q p_q(c) m_q(x) >= 0.

With a temperature T (1 without calibration), the probability of the class is

    p_c(x) = s_c(x)^(1/T) / sum_k s_k(x)^(1/T) = softmax_c(log s_c(x) / T).

For several views (scales, mirrored), the probabilities at T = 1 are averaged and replace s. A
temperature above 1 lowers every confidence. No temperature changes the predicted class.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .class_map import View, resized_rows

_TINY = torch.finfo(torch.float32).tiny
_ROWS = 64  # rows of a map that are computed at a time
Planes = Callable[[], Iterable[Tensor]]  # the scores (H, W) of each class


class Uncertainty(NamedTuple):
    """Measures of how certain each pixel's class is; all have the shape (H, W) and are float32.

    Below, k is the class of the pixel and p its class probabilities (see the module).

    Parameters
    ----------
    confidence : Tensor
        The maximum probability p_k, from 0 to 1.
    entropy : Tensor
        ``-sum_c p_c log p_c`` in nats, from 0 to log C.
    margin : Tensor
        ``p_k - max_{c != k} p_c``. It is negative only where the averaged softmax of several views
        selects a different class than the averaged probability.
    """

    confidence: Tensor
    entropy: Tensor
    margin: Tensor


class ScoredMap(NamedTuple):
    """The class map of an image, with the confidence of each pixel.

    Where every score is 0, the confidence and the margin are 0 and the entropy is log C.

    Parameters
    ----------
    classes : Tensor
        The class with the largest logit, (H, W) uint8.
    confidence : Tensor
        The confidence (H, W), float32; see :class:`Uncertainty`.
    logits : Tensor or None
        The scores (C, H, W), float32; for several views, their averaged softmax.
    probabilities : Tensor or None
        The probabilities (C, H, W) at T = 1, float32.
    uncertainty : Uncertainty or None
        The measures of uncertainty.
    """

    classes: Tensor
    confidence: Tensor
    logits: Tensor | None = None
    probabilities: Tensor | None = None
    uncertainty: Uncertainty | None = None


class Wanted(NamedTuple):
    """The contents of a :class:`ScoredMap` in addition to classes and confidence.

    Parameters
    ----------
    logits, probabilities, uncertainty : bool
        Whether the map contains each of these.
    temperature : float
        The temperature of the confidence and the uncertainty.
    """

    logits: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    temperature: float = 1.0


def scored_whole(logits: Tensor, size: tuple[int, int], wanted: Wanted) -> ScoredMap:
    """Return the scored map of an image from the logits of a single complete view.

    The logits are resized bilinearly, one class at a time.

    Parameters
    ----------
    logits : Tensor
        The logits (C, h, w).
    size : tuple of int
        The height and width (H, W) of the map.
    wanted : Wanted
        The contents of the map.

    Returns
    -------
    ScoredMap
        The map.
    """

    def planes() -> Iterable[Tensor]:
        for plane in logits[:, None, None]:
            yield F.interpolate(plane, size=size, mode="bilinear", align_corners=False)[0, 0]

    if wanted.logits or wanted.probabilities:
        resized = torch.stack(list(planes()))
        return _scored(lambda: resized, wanted, resized)
    return _scored(planes, wanted, None)


def scored_views(
    views: Iterable[View], count: int, size: tuple[int, int], wanted: Wanted
) -> ScoredMap:
    """Return the scored map of an image from its views, as :func:`class_map` does.

    Parameters
    ----------
    views : Iterable[View]
        The views of the image.
    count : int
        The number of views.
    size : tuple of int
        The height and width (H, W) of the map.
    wanted : Wanted
        The contents of the map.

    Returns
    -------
    ScoredMap
        The map.
    """
    if count == 1:
        return _scored_rows(next(iter(views)), size, wanted)
    softmax = shares = None
    for view in views:
        for top, rows in resized_rows(view.rows, view.size, size):
            if softmax is None:
                softmax = torch.zeros((len(rows), *size), device=rows.device)
                shares = torch.zeros_like(softmax)
            place = slice(top, top + rows.shape[1])
            softmax[:, place] += rows.float().softmax(0) / count
            shares[:, place] += _shares(rows.float()) / count
    classes = _reduced(softmax)[0]
    peak = _reduced(shares)[1]
    uncertainty = _uncertainty(shares, classes, peak, wanted.temperature)
    return ScoredMap(
        classes,
        uncertainty.confidence,
        softmax if wanted.logits else None,
        shares if wanted.probabilities else None,
        uncertainty if wanted.uncertainty else None,
    )


def uncertainty_of(probabilities: Tensor, classes: Tensor, temperature: float) -> Uncertainty:
    """Return the uncertainty of a class map.

    Parameters
    ----------
    probabilities : Tensor
        The probabilities (C, H, W) at T = 1.
    classes : Tensor
        The class map (H, W).
    temperature : float
        The temperature.

    Returns
    -------
    Uncertainty
        The measures of uncertainty.
    """
    return _uncertainty(probabilities, classes, _reduced(probabilities)[1], temperature)


def _scored_rows(view: View, size: tuple[int, int], wanted: Wanted) -> ScoredMap:
    """Return the scored map of one view whose rows arrive in bands."""
    found: list[ScoredMap] = []
    for _, rows in resized_rows(view.rows, view.size, size):
        rows = rows.float()
        found.append(_scored(lambda rows=rows: rows, wanted, rows))

    def joined(parts: list[Tensor | None]) -> Tensor | None:
        return None if parts[0] is None else torch.cat(parts, dim=-2)

    *maps, uncertainties = zip(*found, strict=True)
    whole = None
    if uncertainties[0] is not None:
        whole = Uncertainty(*(joined(parts) for parts in zip(*uncertainties, strict=True)))
    return ScoredMap(*(joined(parts) for parts in maps), whole)


def _scored(planes: Planes, wanted: Wanted, scores: Tensor | None) -> ScoredMap:
    """Return the scored map of one view from its scores, which are stored if requested."""
    classes, best, total = _reduced(planes())
    uncertainty = None
    if wanted.uncertainty or wanted.temperature != 1:
        del total
        uncertainty = _uncertainty(planes(), classes, best, wanted.temperature)
        confidence = uncertainty.confidence
    else:
        confidence = best.div_(total.clamp_min_(_TINY)).clamp_(0, 1)
    return ScoredMap(
        classes,
        confidence,
        scores if wanted.logits else None,
        _shares(scores) if wanted.probabilities else None,
        uncertainty if wanted.uncertainty else None,
    )


def _shares(scores: Tensor) -> Tensor:
    return scores / scores.sum(0).clamp_min(_TINY)


def _reduced(planes: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the class, its score and the sum of the scores; ties go to the first class."""
    best = total = classes = None
    for index, plane in enumerate(planes):
        if best is None:
            best, total = plane.clone(), plane.clone()
            classes = torch.zeros_like(plane, dtype=torch.uint8)
        else:
            classes.masked_fill_(plane > best, index)
            torch.maximum(best, plane, out=best)
            total += plane
    return classes, best, total


def _uncertainty(
    planes: Iterable[Tensor], classes: Tensor, peak: Tensor, temperature: float
) -> Uncertainty:
    """Return the uncertainty of a class map from scores relative to the largest score.

    With r_c = (s_c / max s)^(1/T), Z = sum r and p_c = r_c / Z, the entropy is
    log Z - sum(r_c log r_c) / Z. Because r_c <= 1, no power overflows. The largest scores ``peak``
    are overwritten. Temporary tensors have the size of a few rows, because a photograph of 24
    megapixels needs 96 MB for each tensor.
    """
    scored = peak > 0
    peak.clamp_min_(_TINY)
    total, weighted, chosen, other = (torch.zeros_like(peak) for _ in range(4))
    bands = [slice(top, top + _ROWS) for top in range(0, len(peak), _ROWS)]
    count = 0
    for plane in planes:
        for rows in bands:
            ratio = plane[rows] / peak[rows]
            if temperature != 1:
                ratio.pow_(1 / temperature)
            total[rows] += ratio
            weighted[rows] += torch.special.xlogy(ratio, ratio)
            selected = classes[rows] == count
            chosen[rows] = torch.where(selected, ratio, chosen[rows])
            torch.maximum(other[rows], ratio.masked_fill_(selected, 0), out=other[rows])
        count += 1
    total.clamp_min_(1)  # pixels without scores; elsewhere the largest ratio is 1
    margin = other.neg_().add_(chosen).div_(total)
    confidence = chosen.div_(total).clamp_(0, 1)
    weighted.div_(total)
    entropy = total.log_().sub_(weighted).clamp_(0, math.log(count))
    return Uncertainty(confidence, entropy.masked_fill_(~scored, math.log(count)), margin)
