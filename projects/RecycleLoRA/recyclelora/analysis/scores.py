"""Compare two evaluated runs, with intervals from a paired bootstrap over images."""

from collections.abc import Mapping

import numpy as np


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
            "expected two evaluations with common images, got none: evaluate both runs "
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
