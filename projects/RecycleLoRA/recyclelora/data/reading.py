"""Reading of images, and of pairs of images and labels, as arrays of RGB values and class ids."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from recyclelora.common.files import retry_transient

from .decoding import (
    SWAPPING,
    decoding,
    load,
    open_picture,
    read_picture,
    transpose,
    transposition,
)
from .fast_decoding import decode_rgb
from .label_files import GREY_16, read_ids
from .label_maps import LabelMap


class SizeMismatchError(ValueError):
    """The sizes of a label and its image differ."""


def to_rgb(image: Image.Image, file: str | Path) -> np.ndarray:
    """Convert an image of any colour mode to RGB and drop an alpha channel.

    Parameters
    ----------
    image : PIL.Image.Image
        The image.
    file : str or Path
        Its file, for error messages.

    Returns
    -------
    ndarray
        The pixels (H, W, 3), uint8.
    """
    if image.mode in GREY_16:
        # convert("RGB") would clip 16-bit greys at 255 instead of scaling them.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{file}: expected an image of 8 or 16 bits per channel, got values from "
                f"{values.min()} to {values.max()}; convert it to 8 bits"
            )
        grey = (values.astype(np.float32) / 257.0).round()
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError(
            f"{file}: expected an image of 8 or 16 bits per channel, got floating point values of "
            "unknown range; convert it to 8 bits"
        )
    with decoding(file):
        if image.mode == "P" and "transparency" in image.info:  # prevents a warning of Pillow
            image = image.convert("RGBA")
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_image(file: str | Path) -> np.ndarray:
    """Read an image as RGB and apply its EXIF orientation.

    Grey, palette, CMYK, transparent and 16-bit images are converted.

    Parameters
    ----------
    file : str or Path
        A PNG, JPEG, TIFF, BMP, GIF, WebP or PPM file with any suffix, one frame and at most
        ``MAX_PIXELS`` pixels.

    Returns
    -------
    ndarray
        The pixels (H, W, 3), uint8.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, damaged or of another kind. The message contains its name.
    """
    return transpose(*_stored_rgb(file))


def _stored_rgb(file: str | Path) -> tuple[np.ndarray, Image.Transpose | None]:
    """Return the stored pixels and the transposition that turns them upright."""
    image, content = read_picture(file)
    pixels = decode_rgb(image, content)
    if pixels is None:
        pixels = to_rgb(load(image, file), file)
    return pixels, transposition(image)


def read_pair(
    image_file: str | Path, label_file: str | Path, label_map: LabelMap
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its label on the same pixel grid.

    Label files have no orientation, so the size of the label determines the grid: either the
    upright image, as viewers show it, or the image as it is stored. If both fit, the upright image
    is used.

    Parameters
    ----------
    image_file, label_file : str or Path
        The files.
    label_map : LabelMap
        The meaning of the ids in the label file.

    Returns
    -------
    image : ndarray
        The pixels (H, W, 3), uint8 RGB.
    label : ndarray
        Train ids (H, W), uint8.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or invalid, or the sizes differ. The message contains the file name.
    """
    image, ids, table = read_pair_ids(image_file, label_file, label_map)
    return image, cv2.LUT(ids, table)


def read_pair_ids(
    image_file: str | Path, label_file: str | Path, label_map: LabelMap
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a pair as :func:`read_pair` does, without converting the label to train ids.

    A training sample needs only the train ids of its crop.

    Parameters
    ----------
    image_file, label_file, label_map
        See :func:`read_pair`.

    Returns
    -------
    image : ndarray
        The pixels (H, W, 3), uint8 RGB.
    ids : ndarray
        The ids (H, W), uint8.
    table : ndarray
        The train id of each id, (256,) uint8.
    """
    ids = read_ids(label_file, label_map.channel)
    if ids.dtype == np.uint8:
        label_map.check(ids, label_file)
        table = label_map.table[:256]
    else:
        ids = label_map.to_train_ids(ids, label_file)
        table = np.arange(256, dtype=np.uint8)
    stored, needed = _stored_rgb(image_file)
    upright_shape = stored.shape[1::-1] if needed in SWAPPING else stored.shape[:2]
    if ids.shape == upright_shape:
        return transpose(stored, needed), ids, table
    if ids.shape == stored.shape[:2]:
        return stored, ids, table
    raise _size_mismatch(image_file, upright_shape[::-1], label_file, ids.shape[::-1])


def pair_size(image_file: str | Path, label_file: str | Path) -> tuple[int, int]:
    """Read the common size of an image and its label from the file headers.

    Parameters
    ----------
    image_file, label_file : str or Path
        The files.

    Returns
    -------
    (int, int)
        Width and height.

    Raises
    ------
    SizeMismatchError
        If the sizes differ.
    FileNotFoundError, ValueError
        If a file is missing or its header is invalid.
    """
    return retry_transient(lambda: _pair_size(image_file, label_file), image_file)


def _pair_size(image_file: str | Path, label_file: str | Path) -> tuple[int, int]:
    with open_picture(image_file) as image, open_picture(label_file) as label:
        if label.size == image.size:
            return label.size
        # The orientation is read only here, because Pillow decodes a whole PNG to find it.
        if label.size == image.size[::-1] and (
            transposition(image, decoded=False) in SWAPPING
            or transposition(label, decoded=False) in SWAPPING
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
