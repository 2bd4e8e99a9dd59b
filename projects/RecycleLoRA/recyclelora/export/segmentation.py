"""What a segmentor found in one image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.paths import expand_path
from recyclelora.common.validation import check_number, short_repr

KINDS = ("overlay", "color", "classes", "confidence")
# JPEG changes values, so class maps and confidences are lossless.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@dataclass(frozen=True, repr=False)
class Segmentation:
    """The classes of one image.

    Attributes
    ----------
    image : ndarray
        (H, W, 3) uint8 RGB, upright.
    classes : ndarray
        (H, W) uint8, indices of ``class_names``.
    confidence : ndarray
        (H, W) float32 from 0 to 1: the score of the class divided by the sum over all classes. It
        is not calibrated.
    logits : ndarray or None
        (C, H, W) float32 class scores, if they were requested. With a protocol of several views
        they are the averaged softmax over classes.
    class_names : tuple of str
    colors : tuple of (int, int, int)
        RGB of each class.
    """

    image: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray
    logits: np.ndarray | None
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __repr__(self) -> str:
        height, width = self.classes.shape
        return f"Segmentation({width}x{height}, {len(self.class_names)} classes)"

    def color_map(self) -> Image.Image:
        """Return the class map in the colours of the classes."""
        return Image.fromarray(np.array(self.colors, np.uint8)[self.classes])

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Return the image with the class colours over it.

        Parameters
        ----------
        opacity : float
            Of the colours, from 0 to 1.
        """
        check_number("opacity", opacity, most=1)
        return Image.blend(Image.fromarray(self.image), self.color_map(), opacity)

    def save(self, path: str | Path, kind: str = "overlay") -> Path:
        """Write one picture atomically; its folder is created.

        Parameters
        ----------
        path : str or Path
            ``.png``, or ``.jpg`` for an overlay or a colour map.
        kind : {"overlay", "color", "classes", "confidence"}
            "classes" is a grey picture of the class indices. "confidence" is a grey picture, 255
            for confidence 1.

        Returns
        -------
        Path
            ``path``.

        Raises
        ------
        ValueError
            For another kind or suffix. Nothing is written.
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
        return Image.fromarray((255 * self.confidence).round().astype(np.uint8))
