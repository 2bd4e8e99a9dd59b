"""Read image and label files as arrays of RGB values and class ids."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

from .label_maps import LabelMap

#: Larger pictures are refused: a file of a few kilobytes can declare any size.
MAX_PIXELS = 80_000_000
# Recognised by their content. Not all formats of Pillow: it starts an interpreter for EPS.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_LFS = b"version https://git-lfs"  # start of the pointer files in a clone without Git LFS
_LOSSY = ("JPEG", "MPO")
_GREY_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ID_MODES = ("L", "P", "1", *_GREY_16)
# EXIF orientation -> transposition. Not ImageOps.exif_transpose: it also writes all tags, which
# raises an error if any other tag is damaged, and it copies the pixels of upright images.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Those that swap width and height.
_SWAPPING = [_TRANSPOSITIONS[orientation] for orientation in (5, 6, 7, 8)]

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is lower


class SizeMismatchError(ValueError):
    """A label has another size than its image."""


@contextmanager
def _decoding(file: str | Path) -> Iterator[None]:
    """Convert every error of a decoder to one message that names the file."""
    try:
        yield
    except Exception as error:  # a decoder raises many types
        with suppress(OSError), open(file, "rb") as content:
            if content.read(len(_LFS)) == _LFS:
                raise ValueError(
                    f"{file}: expected a complete picture, got a note that Git LFS keeps it "
                    "elsewhere; run 'git lfs pull' in its folder"
                ) from error
        raise ValueError(
            f"{file}: expected a complete picture, got a file that cannot be decoded "
            f"({type(error).__name__}: {error}); restore the file from its source"
        ) from error


def _open(file: str | Path) -> Image.Image:
    """Read the header and validate it; the pixels are not decoded."""
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


def _decode(file: str | Path) -> Image.Image:
    image = _open(file)
    with _decoding(file):
        image.load()
    return image


def _transposition(image: Image.Image) -> Image.Transpose | None:
    """The transposition that turns the stored pixels upright, None if they are upright."""
    try:
        return _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # damaged tags are ignored, as in image viewers
        return None


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; returns ``image`` itself, not a copy, if it is upright."""
    transposition = _transposition(image)
    return image if transposition is None else image.transpose(transposition)


def _rgb(image: Image.Image, file: str | Path) -> np.ndarray:
    """Convert any colour mode to (H, W, 3) uint8; an alpha channel is dropped."""
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
    """Read an image as RGB, with its EXIF orientation applied.

    Grey, palette, CMYK, transparent and 16-bit images are converted.

    Parameters
    ----------
    file : str or Path
        PNG, JPEG, TIFF, BMP, GIF, WebP or PPM, with any suffix, of one frame and at most
        ``MAX_PIXELS`` pixels.

    Returns
    -------
    ndarray
        (H, W, 3) uint8.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is absent, damaged or of another kind; the message names it.
    """
    return _rgb(_upright(_decode(file)), file)


def read_ids(file: str | Path, channel: int | None = None) -> np.ndarray:
    """Read the ids of a label file as they are stored; palette files give their indices.

    Parameters
    ----------
    file : str or Path
        The label file, in a lossless format.
    channel : {0, 1, 2}, optional
        The channel that holds the ids, for labels in a colour file.

    Returns
    -------
    ndarray
        (H, W), unsigned 8 or 16 bits; 32 bits for some grey TIFFs.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is absent, damaged or no map of ids; the message names it.
    """
    image = _decode(file)
    if image.format in _LOSSY:
        raise ValueError(
            f"{file}: expected a label file that keeps every id, got a JPEG, which changes them; "
            "save the labels as PNG from their source"
        )
    if channel is not None:
        with _decoding(file):
            # OpenCV, because Pillow keeps only the high byte of 16-bit colours; and not imread,
            # which cannot open every file name.
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
    """Read an image and its label on the same pixel grid.

    The label's size determines the grid, because label files carry no orientation: upright, as
    viewers show the image, or as the image is stored. Upright is taken if both fit.

    Parameters
    ----------
    image_file, label_file : str or Path
        The files.
    label_map : LabelMap
        The meaning of the ids in the label file.

    Returns
    -------
    image : ndarray
        (H, W, 3) uint8 RGB.
    label : ndarray
        (H, W) uint8 train ids.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is absent or invalid, or the sizes differ; the message names the file.
    """
    train_ids = label_map.to_train_ids(read_ids(label_file, label_map.channel), label_file)
    stored = _decode(image_file)
    upright = _upright(stored)
    for image in (upright, stored):
        if image.size == train_ids.shape[::-1]:
            return _rgb(image, image_file), train_ids
    raise _size_mismatch(image_file, upright.size, label_file, train_ids.shape[::-1])


def pair_size(image_file: str | Path, label_file: str | Path) -> tuple[int, int]:
    """Read the size that an image and its label share from the file headers.

    Returns
    -------
    (int, int)
        Width and height.

    Raises
    ------
    SizeMismatchError
        The sizes differ.
    FileNotFoundError, ValueError
        A file is absent or its header invalid.
    """
    with _open(image_file) as image, _open(label_file) as label:
        if label.size == image.size:
            return label.size
        # The orientation is read only here, because Pillow decodes a whole PNG to find it.
        if label.size == image.size[::-1] and _transposition(image) in _SWAPPING:
            return label.size
        raise _size_mismatch(image_file, image.size, label_file, label.size)


def _size_mismatch(
    image_file: str | Path,
    image_size: tuple[int, int],
    label_file: str | Path,
    label_size: tuple[int, int],
) -> SizeMismatchError:
    return SizeMismatchError(
        f"{label_file}: expected a label of the size of its image {image_file} "
        f"({image_size[0]}x{image_size[1]}), got {label_size[0]}x{label_size[1]}; "
        "replace the pair or remove it from both folders"
    )
