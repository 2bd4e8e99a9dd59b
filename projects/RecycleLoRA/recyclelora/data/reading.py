"""Read images, and pairs of images and labels, as arrays of RGB values and class ids."""

from pathlib import Path

import numpy as np
from PIL import Image

from recyclelora.common.files import retry_transient

from .decoding import SWAPPING, decode_picture, decoding, open_picture, transposition, upright
from .label_files import GREY_16, read_ids
from .label_maps import LabelMap


class SizeMismatchError(ValueError):
    """A label has another size than its image."""


def to_rgb(image: Image.Image, file: str | Path) -> np.ndarray:
    """Convert any colour mode to (H, W, 3) uint8; an alpha channel is dropped."""
    if image.mode in GREY_16:
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
    with decoding(file):
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
    return to_rgb(upright(decode_picture(file)[0]), file)


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
    stored, _ = decode_picture(image_file)
    turned = upright(stored)
    for image in (turned, stored):
        if image.size == train_ids.shape[::-1]:
            return to_rgb(image, image_file), train_ids
    raise _size_mismatch(image_file, turned.size, label_file, train_ids.shape[::-1])


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
    return retry_transient(lambda: _pair_size(image_file, label_file), image_file)


def _pair_size(image_file: str | Path, label_file: str | Path) -> tuple[int, int]:
    with open_picture(image_file) as image, open_picture(label_file) as label:
        if label.size == image.size:
            return label.size
        # The orientation is read only here, because Pillow decodes a whole PNG to find it.
        if label.size == image.size[::-1] and (
            transposition(image) in SWAPPING or transposition(label) in SWAPPING
        ):
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
