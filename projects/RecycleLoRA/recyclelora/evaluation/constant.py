"""A baseline without training: it predicts the most frequent class of the source everywhere."""

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor
from tqdm import tqdm

from recyclelora.data import CLASSES, IGNORE_LABEL
from recyclelora.data.reading import read_ids

from .sliding_window import Predict


def majority_class(records: Iterable[Mapping]) -> int:
    """Return the train id with the most pixels in the labels.

    Parameters
    ----------
    records : Iterable[Mapping]
        Records of a training set, with ``sem_seg_file_name`` and ``label_map``.

    Returns
    -------
    int
        The train id; the lowest one if several are equally frequent.

    Raises
    ------
    ValueError
        If no pixel is labelled.
    """
    counts = np.zeros(256, np.int64)
    for record in tqdm(records, "counting labels", unit="label", leave=False):
        file, label_map = record["sem_seg_file_name"], record["label_map"]
        ids = label_map.to_train_ids(read_ids(file, label_map.channel), file)
        counts += np.bincount(ids.ravel(), minlength=256)
    counts[IGNORE_LABEL] = 0
    if not counts.any():
        raise ValueError("expected labelled pixels in the training labels, got only ignored ones")
    return int(counts.argmax())


def constant_prediction(label: int) -> Predict:
    """Return a function that predicts ``label`` everywhere, for :func:`evaluate_domains`.

    Parameters
    ----------
    label : int
        The train id.

    Returns
    -------
    Callable
        The function from images to logits.

    Examples
    --------
    >>> import torch
    >>> constant_prediction(2)(torch.zeros(1, 3, 4, 4)).argmax(1).unique()
    tensor([2])
    """

    def predict(images: Tensor) -> Tensor:
        logits = images.new_zeros(len(images), len(CLASSES), *images.shape[-2:])
        logits[:, label] = 1
        return logits

    return predict
