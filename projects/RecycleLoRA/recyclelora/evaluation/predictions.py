"""Class maps as files: one PNG per image, in the formats of benchmarks' test servers."""

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
    """Raise unless ``value`` is None or one of ``FORMATS``; the message starts with ``name``.

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
    """Convert a class map (H, W) of train ids 0..18 to one of ``FORMATS``.

    Returns
    -------
    ndarray
        (H, W) uint8, the train ids or Cityscapes' label ids (7 is road), or (H, W, 3) uint8,
        Cityscapes' colours in RGB.

    Examples
    --------
    >>> encode(np.array([[0, 18]], np.uint8), "label_ids")
    array([[ 7, 33]], dtype=uint8)
    """
    return _ENCODERS[form](prediction)


def save_map(file: Path, prediction: np.ndarray, form: str) -> None:
    """Write a class map of train ids as PNG atomically; creates its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        Image.fromarray(encode(prediction, form)).save(temporary, "PNG")


def remove_maps(folder: Path) -> None:
    """Remove the class maps of an earlier evaluation below ``folder``."""
    for file in folder.rglob("*.png"):
        file.unlink()


def save_prediction(folder: Path, form: str, sample: Mapping, prediction: np.ndarray) -> None:
    """Write the class map of one sample of a test loader below ``folder``.

    The file has the image's name and folders in the dataset, and the suffix ``.png``. It has the
    image's size: class maps that are scored at half the size (Mapillary) are enlarged by nearest
    neighbour.
    """
    name = Path(sample["image_id"]).parent / f"{Path(sample['file_name']).stem}.png"
    save_map(folder / name, nearest(prediction, tuple(sample["image"].shape[1:])), form)
