"""Image and label files into arrays: RGB uint8 and class ids, whatever the files' encoding."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .label_maps import LabelMap

#: Larger pictures are refused: a few kilobytes of file may claim to be any size.
MAX_PIXELS = 80_000_000
# Told apart by their content. Not all that Pillow knows: for EPS it starts an interpreter.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_LFS = b"version https://git-lfs"  # how the notes begin that a clone without Git LFS has as files
_LOSSY = ("JPEG", "MPO")
_GREY_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ID_MODES = ("L", "P", "1", *_GREY_16)
# How a stored picture is turned upright, by its EXIF orientation (tag 0x0112; 1 is upright).
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRANSPOSING = (5, 6, 7, 8)

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS says it


@contextmanager
def _decoding(file: str | Path) -> Iterator[None]:
    """Every way a file can be broken becomes one sentence that names it."""
    try:
        yield
    except Exception as error:  # a decoder raises a dozen types
        if _starts_with(file, _LFS):
            raise ValueError(
                f"{file}: expected a complete picture, got a note that Git LFS keeps it elsewhere; "
                "run 'git lfs pull' in its folder"
            ) from error
        raise ValueError(
            f"{file}: expected a complete picture, got a file that cannot be decoded "
            f"({type(error).__name__}: {error}); restore the file from its source"
        ) from error


def _starts_with(file: str | Path, start: bytes) -> bool:
    try:
        with open(file, "rb") as content:
            return content.read(len(start)) == start
    except OSError:
        return False


def _header(file: str | Path) -> Image.Image:
    """Open without decoding the picture."""
    path = Path(file)
    if not path.is_file():
        if not path.exists():
            raise FileNotFoundError(f"{file}: no such file; restore it or remove its pair")
        raise ValueError(
            f"{file}: expected a picture, got a folder or device of that name; rename it"
        )
    with _decoding(file):
        image = Image.open(path, formats=_FORMATS)
        several = image.format != "MPO" and getattr(image, "is_animated", False)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{file}: expected a picture of at most {MAX_PIXELS // 10**6} megapixels, got "
            f"{width}x{height}; make it smaller, with its label"
        )
    if several:
        raise ValueError(
            f"{file}: expected one picture, got several frames or pages; save the one that is "
            "meant as a file of its own"
        )
    return image


def _open(file: str | Path) -> Image.Image:
    """Open and decode."""
    image = _header(file)
    with _decoding(file):
        image.load()
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged tags: as stored, which is what viewers do
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Turned as a viewer shows it; the image itself, not a copy, where nothing is to be done."""
    orientation = _orientation(image)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _rgb(image: Image.Image, file: str | Path) -> np.ndarray:
    """Any colour mode to (H, W, 3) uint8. Transparency is dropped: the colours beneath it count."""
    if image.mode in _GREY_16:
        # convert("RGB") would clip 16-bit greys at 255 instead of scaling them.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{file}: expected an image of 8 or 16 bits a channel, got values from "
                f"{values.min()} to {values.max()}; convert it to 8 bits"
            )
        grey = (values.astype(np.float32) / 257.0).round()
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError(
            f"{file}: expected an image of 8 or 16 bits a channel, got floating point values of "
            "unknown range; convert it to 8 bits"
        )
    with _decoding(file):
        if image.mode == "P" and "transparency" in image.info:  # else Pillow warns
            image = image.convert("RGBA")
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_image(file: str | Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8 RGB, upright as a viewer shows it (by its EXIF orientation).

    PNG, JPEG, TIFF, BMP, GIF, WebP and PPM, whatever the file's name ends in, of at most
    ``MAX_PIXELS`` and one frame. Grey, palette, CMYK, transparent and 16-bit files are converted.

    Raises:
        FileNotFoundError, ValueError: one sentence that names the file.
    """
    return _rgb(_upright(_open(file)), file)


def read_ids(file: str | Path, channel: int | None = None) -> np.ndarray:
    """Read a label file's own ids as (H, W), unsigned 8 or 16 bits (32 for rare greys).

    Palette files give their indices. A 16-bit colour file (``channel`` given) goes through OpenCV,
    because Pillow keeps only the high byte of each value.
    """
    image = _open(file)
    if image.format in _LOSSY:
        raise ValueError(
            f"{file}: expected a label file that keeps every id, got a JPEG, which changes them; "
            "save the labels as PNG from their source"
        )
    if channel is not None:
        with _decoding(file):
            # Not imread, which cannot open every name that a file may have.
            ids = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)
        if ids is None or ids.ndim != 3:
            raise ValueError(
                f"{file}: expected a colour file with the class in channel {channel}, got mode "
                f"{image.mode}; give the label map channel=None for grey and palette labels"
            )
        return ids[..., 2 - channel]  # OpenCV orders channels blue, green, red
    if image.mode not in _ID_MODES:
        raise ValueError(
            f"{file}: expected a map of class ids (grey or palette), got a picture of mode "
            f"{image.mode}; point the dataset at the id maps, or name the channel in its label map"
        )
    ids = np.asarray(image)
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def read_pair(
    image_file: str | Path, label_file: str | Path, label_map: LabelMap
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image (H, W, 3) uint8 RGB with its train ids (H, W) uint8 on the same pixel grid.

    A label carries no orientation of its own, so its size says which grid it was drawn on: upright
    as viewers show the image (the usual case, and what is taken where both fit), or as stored.

    Raises:
        FileNotFoundError, ValueError: one sentence that names the file.
    """
    train_ids = label_map.to_train_ids(read_ids(label_file, label_map.channel), label_file)
    stored = _open(image_file)
    upright = _upright(stored)
    for image in (upright, stored):
        if image.size == train_ids.shape[::-1]:
            return _rgb(image, image_file), train_ids
    raise size_mismatch(image_file, upright.size, label_file, train_ids.shape[::-1])


def pair_size(image_file: str | Path, label_file: str | Path) -> tuple[int, int] | None:
    """(width, height) shared by image and label, from the file headers; None where they differ."""
    with _header(image_file) as image, _header(label_file) as label:
        if label.size == image.size:
            return label.size
        # Asked for only here: to look for it, Pillow decodes a whole PNG.
        turned = _orientation(image) in _TRANSPOSING
        return label.size if turned and label.size == image.size[::-1] else None


def size_mismatch(
    image_file: str | Path,
    image_size: tuple[int, int],
    label_file: str | Path,
    label_size: tuple[int, int],
) -> ValueError:
    """The one sentence for a label of another size than its image; sizes are (width, height)."""
    return ValueError(
        f"{label_file}: expected a label of the size of its image {image_file} "
        f"({image_size[0]}x{image_size[1]}), got {label_size[0]}x{label_size[1]}; "
        "replace the pair or remove it from both folders"
    )


def header_size(file: str | Path) -> tuple[int, int]:
    """(width, height) as stored, without decoding the picture."""
    with _header(file) as image:
        return image.size
