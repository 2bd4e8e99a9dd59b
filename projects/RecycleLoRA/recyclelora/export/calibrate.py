"""Calibration of the temperature on a validation set, called by ``tools/calibrate.py``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from recyclelora.common.atomic_write import write_json
from recyclelora.common.validation import check_integer
from recyclelora.data.loader import TestLoader
from recyclelora.engine.build import load_config
from recyclelora.engine.evaluation import target_loaders
from recyclelora.evaluation.calibration import (
    ConfidenceHistogram,
    Sample,
    confidence_at,
    fit_temperature,
    join_pixels,
    negative_log_likelihood,
    right_pixels,
    sample_pixels,
    segment_with_confidence,
)
from recyclelora.evaluation.sliding_window import Predict

from .inference import Inference


def calibrate(
    load: Callable[[], Inference],
    output: Path,
    *,
    config_file: str,
    overrides: Sequence[str],
    fit: Sequence[str],
    pixels: int = 2000,
) -> dict:
    """Fit the temperature on validation domains, and write the scores of all domains.

    Parameters
    ----------
    load : Callable
        Function that returns the model for inference. It is called only after the names of the
        domains are validated.
    output : Path
        The JSON file, written atomically: ``{"temperature": float, "fitted_on": [...], "pixels":
        int, "NLL": {"before": float, "after": float}, "domains": {name: {"before": {"ECE": float,
        "AUROC": float}, "after": {...}}}}``. ECE and AUROC are in percent, NLL in nats.
    config_file, overrides : str, sequence of str
        The config, whose ``dataloader.test`` defines the domains.
    fit : sequence of str
        The names of the domains for the fit. They should not be domains of the test.
    pixels : int
        The number of labelled pixels to draw from each of their images.

    Returns
    -------
    dict
        The content of ``output``.

    Raises
    ------
    ValueError
        If a domain does not exist or no pixel is labelled.
    """
    check_integer("pixels", pixels, least=1, most=10**6)
    loaders = target_loaders(load_config(config_file, overrides))
    if unknown := [name for name in fit if name not in loaders]:
        raise ValueError(
            f"the config has no domain {unknown[0]!r} to fit the temperature to: name one of "
            f"{', '.join(loaders)}"
        )
    inference = load()
    with inference.started() as predict:
        samples = [
            sample
            for name in dict.fromkeys(fit)
            for sample in _samples(inference, predict, name, loaders[name], pixels)
        ]
        fitted = join_pixels(samples)
        temperature = fit_temperature([fitted])
        domains = {
            name: _scores(inference, predict, name, loader, temperature)
            for name, loader in loaders.items()
        }
    content = {
        "temperature": temperature,
        "fitted_on": list(dict.fromkeys(fit)),
        "pixels": sum(len(sample.shares) for sample in samples),
        "NLL": {
            "before": negative_log_likelihood(fitted, 1.0),
            "after": negative_log_likelihood(fitted, temperature),
        },
        "domains": domains,
    }
    write_json(output, content)
    return content


def _samples(
    inference: Inference, predict: Predict, name: str, loader: TestLoader, pixels: int
) -> list[Sample]:
    """Return the pixels that are drawn from each image of a domain."""
    folding, found = loader.metadata.get("folding"), []
    progress = tqdm(loader, f"fitting to {name}", unit="image")
    for number, sample in zip(loader.indices, progress, strict=True):
        segmented = segment_with_confidence(
            inference.protocol, predict, sample, loader.metadata.benchmark, probabilities=True
        )
        found.append(sample_pixels(segmented, folding, count=pixels, seed=(0, number)))
    return found


def _scores(
    inference: Inference, predict: Predict, name: str, loader: TestLoader, temperature: float
) -> dict[str, Mapping[str, float | None]]:
    """Return ECE and AUROC of a domain at T = 1 and at the fitted temperature."""
    folding = loader.metadata.get("folding")
    before, after = ConfidenceHistogram(), ConfidenceHistogram(temperature)
    for sample in tqdm(loader, name, unit="image"):
        segmented = segment_with_confidence(
            inference.protocol, predict, sample, loader.metadata.benchmark, probabilities=True
        )
        labelled, right = right_pixels(segmented.prediction, segmented.truth, folding)
        for histogram in (before, after):
            confidence = confidence_at(segmented, histogram.temperature)
            histogram.update(confidence[labelled], right)
    return {"before": before.scores(), "after": after.scores()}
