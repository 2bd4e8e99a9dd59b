"""Files of class maps: one PNG per image, in the formats of the benchmarks' test servers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.validation import short_repr
from recyclelora.data import CITYSCAPES_IDS, IGNORE_LABEL

from .pictures import colorize
from .protocol import nearest

_LABEL_IDS = np.zeros(len(set(CITYSCAPES_IDS.ids.values()) - {IGNORE_LABEL}), np.uint8)
for _label_id, _train_id in CITYSCAPES_IDS.ids.items():
    if _train_id != IGNORE_LABEL:
        _LABEL_IDS[_train_id] = _label_id

_ENCODERS = {
    "train_ids": lambda prediction: prediction,
    "label_ids": lambda prediction: _LABEL_IDS[prediction],
    "color": colorize,
}
FORMATS = tuple(_ENCODERS)


def check_format(name: str, value: object) -> None:
    """Raise an error unless ``value`` is None or one of ``FORMATS``.

    Parameters
    ----------
    name : str
        The name of the setting, with which the error message starts.
    value : object
        The value to check.

    Raises
    ------
    ValueError
        If the value is not a format.

    Examples
    --------
    >>> check_format("save_predictions", "labels")
    Traceback (most recent call last):
    ValueError: save_predictions must be null, train_ids, label_ids or color, got 'labels'
    """
    if value is not None and value not in FORMATS:
        raise ValueError(
            f"{name} must be null, {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got "
            f"{short_repr(value)}"
        )


def encode(prediction: np.ndarray, form: str) -> np.ndarray:
    """Convert a class map of train ids to one of ``FORMATS``.

    Parameters
    ----------
    prediction : ndarray
        Train ids 0..18 (H, W).
    form : str
        The format.

    Returns
    -------
    ndarray
        Train ids or Cityscapes label ids (H, W) uint8 (road is 7), or Cityscapes colours
        (H, W, 3) uint8 RGB.

    Examples
    --------
    >>> encode(np.array([[0, 18]], np.uint8), "label_ids")
    array([[ 7, 33]], dtype=uint8)
    """
    return _ENCODERS[form](prediction)


def save_map(file: Path, prediction: np.ndarray, form: str) -> None:
    """Write a class map as PNG atomically; its folder is created.

    Parameters
    ----------
    file : Path
        The file.
    prediction : ndarray
        Train ids (H, W).
    form : str
        One of ``FORMATS``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        Image.fromarray(encode(prediction, form)).save(temporary, "PNG")


def remove_maps(folder: Path) -> None:
    """Remove the class maps of an earlier evaluation below ``folder``.

    Parameters
    ----------
    folder : Path
        The folder of the class maps.
    """
    for file in folder.rglob("*.png"):
        file.unlink()


def save_prediction(folder: Path, form: str, sample: Mapping, prediction: np.ndarray) -> None:
    """Write the class map of one sample of a test loader below ``folder``.

    The file gets the name of the image, its folders in the dataset and the suffix ``.png``. The map
    has the size of the image: class maps that are scored at half the size (Mapillary) are enlarged
    by nearest neighbour.

    Parameters
    ----------
    folder : Path
        The folder of the class maps.
    form : str
        One of ``FORMATS``.
    sample : Mapping
        The sample.
    prediction : ndarray
        Its train ids (H, W).
    """
    name = Path(sample["image_id"]).parent / f"{Path(sample['file_name']).stem}.png"
    save_map(folder / name, nearest(prediction, tuple(sample["image"].shape[1:])), form)
