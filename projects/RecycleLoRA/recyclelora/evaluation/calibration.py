"""Calibration of the confidences: calibration error, AUROC of errors and temperature scaling.

The expected calibration error over B bins of equal width is

    ECE = sum_b n_b / n |right_b / n_b - mean confidence_b|

(Guo et al. 2017, eq. 5). The AUROC of errors is the probability that a wrong pixel has a lower
confidence than a right one, where equal confidences count one half. It is 0.5 if the confidence
carries no information and 1 if it separates the errors perfectly. Only labelled pixels are counted.
A pixel is right if its predicted class, folded onto the labels of the dataset, equals its label.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from detectron2.utils import comm
from scipy.optimize import minimize_scalar
from torch import Tensor

from recyclelora.data import CLASSES, IGNORE_LABEL, Folding

from .protocol import Protocol, nearest
from .scored_map import Wanted, uncertainty_of
from .sliding_window import Predict

BINS = 15  # as in Guo et al.
_FINE = BINS * 4096
_LEAST_SHARE = 1e-12  # limits the cost of a class with score 0 to 28 nats
_TEMPERATURES = (0.05, 20.0)


class ConfidenceHistogram:
    """Counts of right and wrong pixels by confidence, in 61,440 bins.

    The ECE is exact. The AUROC treats the confidences in one bin as equal. The resulting error is
    at most the share of pairs of pixels whose confidences differ by less than 1.6e-5.

    Parameters
    ----------
    temperature : float
        The temperature at which :meth:`segment` computes confidences.

    Examples
    --------
    >>> histogram = ConfidenceHistogram()
    >>> histogram.update(np.array([0.9, 0.8, 0.3, 0.6]), np.array([True, True, False, True]))
    >>> round(histogram.expected_calibration_error(), 4), histogram.auroc_of_errors()
    (0.25, 1.0)
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self.counts = np.zeros((2, _FINE), np.int64)  # wrong, right
        self.sums = np.zeros(_FINE)  # of the confidences

    def update(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Count pixels.

        Parameters
        ----------
        confidence : ndarray
            The confidences, from 0 to 1.
        right : ndarray
            Boolean array of the same shape: whether the predicted class of each pixel is right.
        """
        confidence = np.asarray(confidence, np.float64).ravel()
        bins = np.minimum((confidence * _FINE).astype(np.int64), _FINE - 1)
        right = np.asarray(right, bool).ravel()
        for row, chosen in enumerate((~right, right)):
            self.counts[row] += np.bincount(bins[chosen], minlength=_FINE)
        self.sums += np.bincount(bins, weights=confidence, minlength=_FINE)

    def segment(
        self,
        protocol: Protocol,
        predict: Predict,
        sample: Mapping,
        benchmark: str,
        folding: Folding | None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Segment a sample as :meth:`Protocol.segment` does, and count its labelled pixels.

        Parameters
        ----------
        protocol : Protocol
            The evaluation protocol.
        predict : Callable
            The function from images to logits.
        sample : Mapping
            A sample of a test loader.
        benchmark : str
            The benchmark of the dataset.
        folding : Folding or None
            The folding of the classes onto the labels of the dataset, if it has fewer classes.

        Returns
        -------
        prediction, truth, image : ndarray
            The result of :meth:`Protocol.segment`.
        """
        found = segment_with_confidence(
            protocol, predict, sample, benchmark, temperature=self.temperature
        )
        labelled, right = right_pixels(found.prediction, found.truth, folding)
        self.update(found.confidence[labelled], right)
        return found.prediction, found.truth, found.image

    def merge(self) -> "ConfidenceHistogram":
        """Sum the counts over all processes; every process gets the sums.

        Returns
        -------
        ConfidenceHistogram
            This histogram.
        """
        gathered = comm.all_gather((self.counts, self.sums))
        self.counts = sum(counts for counts, _ in gathered)
        self.sums = sum(sums for _, sums in gathered)
        return self

    def expected_calibration_error(self) -> float:
        """Return the ECE over 15 bins, from 0 to 1, or NaN if no pixel was counted."""
        right = self.counts[1].reshape(BINS, -1).sum(1)
        total = int(self.counts.sum())
        if not total:
            return math.nan
        return float(np.abs(right - self.sums.reshape(BINS, -1).sum(1)).sum() / total)

    def auroc_of_errors(self) -> float:
        """Return the AUROC of errors, or NaN if all pixels or no pixels are wrong."""
        wrong, right = self.counts.astype(np.float64)
        pairs = wrong.sum() * right.sum()
        if not pairs:
            return math.nan
        above = right.sum() - np.cumsum(right)  # number of right pixels with a higher confidence
        return float((wrong * (above + right / 2)).sum() / pairs)

    def scores(self) -> dict[str, float | None]:
        """Return ``ECE`` and ``AUROC`` in percent for ``domains.json``; None stands for NaN."""
        values = {"ECE": self.expected_calibration_error(), "AUROC": self.auroc_of_errors()}
        return {name: None if math.isnan(x) else 100 * x for name, x in values.items()}


class Segmented(NamedTuple):
    """The result of :func:`segment_with_confidence`; arrays have the size (H, W) of the truth."""

    prediction: np.ndarray
    truth: np.ndarray
    image: np.ndarray
    confidence: np.ndarray
    probabilities: Tensor | None  # (C, h, w) on the device, or None unless requested


def segment_with_confidence(
    protocol: Protocol,
    predict: Predict,
    sample: Mapping,
    benchmark: str,
    *,
    temperature: float = 1.0,
    probabilities: bool = False,
) -> Segmented:
    """Segment a sample of a test loader as :meth:`Protocol.segment` does, with confidences.

    Parameters
    ----------
    protocol : Protocol
        The evaluation protocol.
    predict : Callable
        The function from images to logits.
    sample : Mapping
        A sample of a test loader.
    benchmark : str
        The benchmark of the dataset.
    temperature : float
        The temperature of the confidences.
    probabilities : bool
        Whether to return the probabilities of all classes.

    Returns
    -------
    Segmented
        The class map, its confidences and, if requested, the probabilities.

    Raises
    ------
    ValueError
        If the logits are not finite or the image is too large. The message names the image file.
    """
    image, truth = protocol.prepare(sample["image"], sample["sem_seg"], benchmark)
    wanted = Wanted(probabilities=probabilities, temperature=temperature)
    try:
        scored = protocol.score(predict, sample["image"][None], benchmark, wanted)[0]
    except ValueError as error:
        raise type(error)(f"{sample['file_name']}: {error}") from error
    size = tuple(truth.shape)
    return Segmented(
        nearest(scored.classes.cpu().numpy(), size),
        truth.numpy(),
        image.permute(1, 2, 0).contiguous().numpy(),
        nearest(scored.confidence.cpu().numpy(), size),
        scored.probabilities,
    )


def labels_of(folding: Folding | None) -> np.ndarray:
    """Return the label of each predicted class.

    Parameters
    ----------
    folding : Folding or None
        The folding of the classes onto the labels of the dataset.

    Returns
    -------
    ndarray
        The labels. A class without a label gets a value that is not a label.
    """
    return np.arange(len(CLASSES)) if folding is None else folding.table


def right_pixels(
    prediction: np.ndarray, truth: np.ndarray, folding: Folding | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels are labelled, and which of the labelled pixels are right.

    Parameters
    ----------
    prediction, truth : ndarray
        Train ids (H, W).
    folding : Folding or None
        The folding of the classes onto the labels of the dataset.

    Returns
    -------
    labelled : ndarray
        Boolean array (H, W).
    right : ndarray
        Boolean array with one value per labelled pixel.
    """
    labelled = truth != IGNORE_LABEL
    return labelled, labels_of(folding)[prediction[labelled]] == truth[labelled]


class Sample(NamedTuple):
    """Pixels to which a temperature is fitted.

    Parameters
    ----------
    shares : Tensor
        The probabilities (N, C) at T = 1.
    allowed : Tensor
        Boolean tensor (N, C) that marks the classes that count as right.
    """

    shares: Tensor
    allowed: Tensor


def sample_pixels(
    segmented: Segmented, folding: Folding | None, *, count: int, seed: tuple[int, ...]
) -> Sample:
    """Draw up to ``count`` random labelled pixels of an image.

    Parameters
    ----------
    segmented : Segmented
        The segmented image, with probabilities.
    folding : Folding or None
        The folding of the classes onto the labels of the dataset.
    count : int
        The largest number of pixels.
    seed : tuple of int
        The seed of the random choice.

    Returns
    -------
    Sample
        The pixels.
    """
    places = np.flatnonzero(segmented.truth.ravel() != IGNORE_LABEL)
    generator = np.random.default_rng(seed)
    places = np.sort(generator.permutation(places)[:count])
    height, width = segmented.truth.shape
    rows, columns = places // width, places % width
    planes = segmented.probabilities
    # The probabilities differ in size from the truth if the argmax is taken at the input's size.
    at = (rows * planes.shape[1] // height, columns * planes.shape[2] // width)
    shares = planes[:, torch.from_numpy(at[0]), torch.from_numpy(at[1])].T.cpu()
    truth = torch.from_numpy(segmented.truth[rows, columns].astype(np.int64))
    return Sample(shares, torch.from_numpy(labels_of(folding))[None] == truth[:, None])


def negative_log_likelihood(sample: Sample, temperature: float) -> float:
    """Return the mean of ``-log sum_(c is right) p_c`` at a temperature, in nats.

    Parameters
    ----------
    sample : Sample
        The pixels.
    temperature : float
        The temperature.

    Returns
    -------
    float
        The mean over the pixels, computed in float64.
    """
    logs = sample.shares.double().clamp_min(_LEAST_SHARE).log() / temperature
    right = logs.masked_fill(~sample.allowed, -torch.inf)
    return float((logs.logsumexp(1) - right.logsumexp(1)).mean())


def join_pixels(samples: Iterable[Sample]) -> Sample:
    """Return the pixels of several images that have a right class.

    Parameters
    ----------
    samples : Iterable[Sample]
        Pixels of :func:`sample_pixels`.

    Returns
    -------
    Sample
        The pixels, in order.

    Raises
    ------
    ValueError
        If there is no labelled pixel with a right class.
    """
    joined = Sample(*(torch.cat(parts) for parts in zip(*samples, strict=True)))
    known = joined.allowed.any(1)
    if not known.any():
        raise ValueError("expected labelled pixels to fit a temperature to, got none")
    return Sample(joined.shares[known], joined.allowed[known])


def fit_temperature(samples: Iterable[Sample]) -> float:
    """Return the temperature between 0.05 and 20 with the lowest negative log-likelihood.

    Parameters
    ----------
    samples : Iterable[Sample]
        Pixels of :func:`sample_pixels`.

    Returns
    -------
    float
        The temperature.

    Raises
    ------
    ValueError
        If there is no labelled pixel with a right class.
    """
    joined = join_pixels(samples)
    found = minimize_scalar(
        lambda log: negative_log_likelihood(joined, math.exp(log)),
        bounds=tuple(map(math.log, _TEMPERATURES)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(found.x)


def confidence_at(segmented: Segmented, temperature: float) -> np.ndarray:
    """Return the confidence (H, W) of the predicted classes at another temperature.

    Parameters
    ----------
    segmented : Segmented
        The segmented image, with probabilities.
    temperature : float
        The temperature.

    Returns
    -------
    ndarray
        The confidences, float32.
    """
    planes = segmented.probabilities
    size = tuple(planes.shape[1:])
    classes = torch.from_numpy(nearest(segmented.prediction, size)).to(planes.device)
    found = uncertainty_of(planes, classes, temperature).confidence
    return nearest(found.cpu().numpy(), segmented.truth.shape)
