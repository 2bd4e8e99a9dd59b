"""The images that :meth:`Segmentor.predict` accepts, as arrays of RGB values."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from recyclelora.common.paths import expand_path
from recyclelora.common.validation import short_repr
from recyclelora.data import read_image
from recyclelora.data.decoding import MAX_PIXELS, decoding, upright
from recyclelora.data.reading import to_rgb

ImageLike = str | os.PathLike | np.ndarray | Image.Image | Tensor


def is_list(images: object) -> bool:
    """Return whether the argument is a list or tuple of images.

    Parameters
    ----------
    images : object
        The argument of :meth:`Segmentor.predict`.

    Returns
    -------
    bool
        True for several images.
    """
    return isinstance(images, Sequence) and not isinstance(images, str)


def image_name(image: object, index: int | None) -> str:
    """Return the name of an image for error messages.

    Parameters
    ----------
    image : object
        The image.
    index : int or None
        Its index in a list of images.

    Returns
    -------
    str
        The name.
    """
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    return "the image" if index is None else f"image {index} of the list"


def image_pixels(image: ImageLike, name: str) -> np.ndarray:
    """Return the pixels of an image.

    Parameters
    ----------
    image : path, ndarray, PIL image or Tensor
        The image.
    name : str
        Its name for error messages.

    Returns
    -------
    ndarray
        The pixels (H, W, 3), uint8 RGB.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        If the image cannot be read or has another type. The message starts with ``name``.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(expand_path(image))
    if isinstance(image, Image.Image):
        _check_size(image.size[::-1], name)
        with decoding(name):
            image.load()
        return to_rgb(upright(image), name)
    if isinstance(image, Tensor):
        _check_values(image.dtype, tuple(image.shape), name, "(3, H, W)", channels=0)
        return np.ascontiguousarray(image.detach().cpu().permute(1, 2, 0).numpy())
    if isinstance(image, np.ndarray):
        _check_values(image.dtype, image.shape, name, "(H, W, 3)", channels=2)
        return np.ascontiguousarray(image)
    raise TypeError(
        f"{name}: expected a path, a NumPy array, a PIL image or a tensor, got {short_repr(image)}"
    )


def _check_values(
    dtype: object, shape: tuple[int, ...], name: str, form: str, *, channels: int
) -> None:
    if len(shape) != 3 or shape[channels] != 3 or not str(dtype).endswith("uint8"):
        raise ValueError(
            f"{name}: expected {form} uint8 RGB, got shape {shape} of {dtype}: convert values from "
            "0 to 1 by (255 * image).round(), and give several images as a list"
        )
    _check_size(tuple(size for axis, size in enumerate(shape) if axis != channels), name)


def _check_size(size: tuple[int, ...], name: str) -> None:
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise ValueError(
            f"{name}: expected an image of 1 pixel to {MAX_PIXELS // 10**6} megapixels, got "
            f"{size[1]}x{size[0]}: resize the image"
        )
