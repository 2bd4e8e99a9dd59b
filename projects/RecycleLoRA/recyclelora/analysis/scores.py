"""Compare two evaluated runs, with intervals from a paired bootstrap over images."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Scores(NamedTuple):
    """The evaluation of a run.

    Attributes
    ----------
    domains, images, confusion : dict
        The content of ``domains.json``, ``images.json`` and ``confusion.json``. The last one is
        empty if an earlier version evaluated the run.
    """

    domains: dict
    images: dict
    confusion: dict


def read_scores(folder: Path) -> Scores | None:
    """Return the scores in the output folder of a run.

    Parameters
    ----------
    folder : Path
        The output folder.

    Returns
    -------
    Scores or None
        None if the run has not been evaluated.
    """
    found = [
        json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        for file in (folder / f"{name}.json" for name in Scores._fields)
    ]
    domains, images, confusion = found
    if domains is None or images is None:
        return None
    return Scores(domains, images, confusion or {})


def paired_difference(
    first: Mapping[str, float | None],
    second: Mapping[str, float | None],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict:
    """Return the mean difference of the mIoU of single images, and its 95 % interval.

    The statistic is the mean over images of the mIoU of each image, which ``images.json`` contains.
    It is not the mIoU of the whole set, which is computed from the sum of confusion matrices. Each
    resample draws as many images with replacement, the same ones for both runs.

    Parameters
    ----------
    first, second : Mapping[str, float or None]
        mIoU in percent by image, or None for an image without labels.
    resamples, seed : int
        Number of resamples, and seed of the random generator.

    Returns
    -------
    dict
        "difference" (second minus first), "low" and "high" in percentage points, and "images", the
        number of images.

    Raises
    ------
    ValueError
        If the runs have no image in common.

    Examples
    --------
    >>> paired_difference({"a": 50.0, "b": 60.0}, {"a": 51.0, "b": 61.0})
    {'difference': 1.0, 'low': 1.0, 'high': 1.0, 'images': 2}
    """
    names = [
        name for name, score in first.items() if score is not None and second.get(name) is not None
    ]
    if not names:
        raise ValueError(
            "expected two evaluations with common images, got two without: evaluate both runs "
            "with the same dataloader.test and dataloader.subset"
        )
    change = np.array([second[name] - first[name] for name in names], dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    low, high = np.percentile(change[drawn].mean(axis=1), [2.5, 97.5])
    return {
        "difference": float(change.mean()),
        "low": float(low),
        "high": float(high),
        "images": len(names),
    }
