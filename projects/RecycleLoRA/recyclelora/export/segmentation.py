"""The result of a segmentor for one image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.paths import expand_path
from recyclelora.common.validation import check_number, short_repr
from recyclelora.data import CLASSES
from recyclelora.evaluation.predictions import encode

KINDS = ("overlay", "color", "classes", "label_ids", "confidence", "entropy", "margin")
# JPEG changes values, so class maps and confidences require a lossless format.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_LONGEST_JPEG = 65_500  # limit of libjpeg


@dataclass(frozen=True, repr=False)
class Segmentation:
    """The segmentation of one image.

    Attributes
    ----------
    image : ndarray
        The image (H, W, 3), uint8 RGB, upright.
    classes : ndarray
        The class map (H, W), uint8 indices of ``class_names``.
    confidence : ndarray
        The probability (H, W) of the class at the segmentor's temperature, float32 from 0 to 1. See
        :mod:`recyclelora.evaluation.scored_map` for the equations.
    logits : ndarray or None
        The class scores (C, H, W), float32, if they were requested. For a protocol with several
        views they are the averaged softmax over the classes.
    entropy, margin : ndarray or None
        Arrays (H, W), float32, if they were requested. The entropy of the probabilities is in nats.
        The margin is the probability of the class minus the largest probability of another class.
    class_names : tuple of str
        The names of the classes.
    colors : tuple of (int, int, int)
        The RGB colour of each class.
    """

    image: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray
    logits: np.ndarray | None
    entropy: np.ndarray | None
    margin: np.ndarray | None
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __repr__(self) -> str:
        height, width = self.classes.shape
        return f"Segmentation({width}x{height}, {len(self.class_names)} classes)"

    def color_map(self) -> Image.Image:
        """Return the class map in the colours of the classes.

        Returns
        -------
        Image
            The picture.
        """
        return Image.fromarray(colored(self.classes, self.colors))

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Return the image blended with the class colours.

        Parameters
        ----------
        opacity : float
            The opacity of the colours, from 0 to 1.

        Returns
        -------
        Image
            The picture.
        """
        check_number("opacity", opacity, most=1)
        return Image.fromarray(blended(self.image, self.classes, self.colors, opacity))

    def save(self, path: str | Path, kind: str = "overlay") -> Path:
        """Write one picture atomically; its folder is created.

        Parameters
        ----------
        path : str or Path
            The file, with the suffix ``.png``, or ``.jpg`` for an overlay or a colour map.
        kind : str
            "overlay" and "color" are pictures in the colours of the classes. The others are grey:
            "classes" contains class indices, and "label_ids" the label ids of Cityscapes (road is
            7). In "confidence" and "margin", white (255) stands for 1; in "entropy", for log C.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ValueError
            If the kind or the suffix is not supported, if label ids are requested for classes other
            than those of Cityscapes, or if entropy or margin was not requested from the segmentor.
            Nothing is written.
        OSError
            If the file cannot be written.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {short_repr(kind)}")
        path = expand_path(path)
        known = FORMATS if kind in ("overlay", "color") else {".png": "PNG"}
        if path.suffix.lower() not in known:
            raise ValueError(
                f"{path}: expected a file name with {' or '.join(known)} for {kind!r}: add it"
            )
        is_jpeg = known[path.suffix.lower()] == "JPEG"
        if is_jpeg and max(self.classes.shape) > _LONGEST_JPEG:
            raise ValueError(
                f"{path}: a JPEG has at most {_LONGEST_JPEG:,} pixels per side: save a PNG"
            )
        picture = self._picture(kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            picture.save(temporary, known[path.suffix.lower()], quality=90)
        return path

    def _picture(self, kind: str) -> Image.Image:
        if kind == "overlay":
            return self.overlay()
        if kind == "color":
            return self.color_map()
        if kind == "classes":
            return Image.fromarray(self.classes)
        if kind == "label_ids":
            check_label_ids(self.class_names)
            return Image.fromarray(encode(self.classes, kind))
        values = getattr(self, kind)
        if values is None:
            raise ValueError(f"there is no {kind}: call predict(images, uncertainty=True)")
        most = math.log(max(len(self.class_names), 2)) if kind == "entropy" else 1
        return Image.fromarray((255 * (values / most).clip(0, 1)).round().astype(np.uint8))


def check_label_ids(class_names: Sequence[str]) -> None:
    """Raise an error unless the classes are those of Cityscapes, which have label ids.

    Parameters
    ----------
    class_names : sequence of str
        The names of the classes.

    Raises
    ------
    ValueError
        If they are other classes.
    """
    if tuple(class_names) != tuple(CLASSES):
        raise ValueError(
            "label ids exist only for the 19 classes of Cityscapes: use the indices of the "
            "classes (classes in Python, train_ids of the tool)"
        )


def colored(classes: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """Convert class indices to colours.

    Parameters
    ----------
    classes : ndarray
        Class indices (H, W).
    colors : sequence
        The RGB colour of each class.

    Returns
    -------
    ndarray
        Colours (H, W, 3), uint8.
    """
    return np.array(colors, np.uint8)[classes]


def blended(
    image: np.ndarray, classes: np.ndarray, colors: Sequence[Sequence[int]], opacity: float = 0.5
) -> np.ndarray:
    """Blend an image with the colours of its classes.

    Parameters
    ----------
    image : ndarray
        The image (H, W, 3), uint8 RGB.
    classes : ndarray
        Class indices (H, W).
    colors : sequence
        The RGB colour of each class.
    opacity : float
        The opacity of the colours, from 0 to 1.

    Returns
    -------
    ndarray
        The blended image (H, W, 3), uint8.
    """
    over = Image.fromarray(colored(classes, colors))
    return np.asarray(Image.blend(Image.fromarray(image), over, opacity))
