"""Decoding of PNG with kornia-rs and of JPEG with simplejpeg, to the same values as Pillow.

Pillow remains the reference. It reads the header of every file and decodes every file that the fast
decoders refuse. The error message for a damaged file is therefore the same with and without the
fast decoders.
"""

import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from PIL import Image, features

try:
    import simplejpeg
    from kornia_rs import io as kornia_io
except ImportError:
    simplejpeg = kornia_io = None

# Pillow may be built with another libjpeg, which rounds differently.
_SAME_JPEG = features.check("libjpeg_turbo")


def is_installed() -> bool:
    """Return whether the fast decoders are installed."""
    return kornia_io is not None


def decode_rgb(image: Image.Image, content: bytes) -> np.ndarray | None:
    """Decode a picture as RGB and drop an alpha channel.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture, whose header Pillow has read.
    content : bytes
        The content of the file.

    Returns
    -------
    ndarray or None
        The pixels (H, W, 3) uint8 as stored, without the EXIF orientation. None if Pillow must
        decode the file: if the fast decoders are not installed, the file is damaged, or it is
        neither a colour JPEG nor an 8-bit PNG in RGB or RGBA.
    """
    if kornia_io is None:
        return None
    if image.format in ("JPEG", "MPO") and image.mode == "RGB" and _SAME_JPEG:
        return _exact(image, lambda: simplejpeg.decode_jpeg(content))
    if image.mode == "RGB":
        return _decode_png(image, content, "rgb")
    if image.mode == "RGBA":
        colours = _decode_png(image, content, "rgba")
        return None if colours is None else np.ascontiguousarray(colours[..., :3])
    return None


def decode_indices(image: Image.Image, content: bytes) -> np.ndarray | None:
    """Decode the grey values or palette indices of an 8-bit PNG.

    Parameters
    ----------
    image, content
        See :func:`decode_rgb`.

    Returns
    -------
    ndarray or None
        The values (H, W) uint8 as stored; None if Pillow must decode the file.
    """
    if kornia_io is None or image.mode not in ("L", "P"):
        return None
    indices = _decode_png(image, content, "mono")
    return None if indices is None else indices[..., 0]


def _decode_png(image: Image.Image, content: bytes, mode: str) -> np.ndarray | None:
    """Decode a PNG with 8 bits per channel; kornia-rs refuses other depths and colours."""
    if image.format != "PNG" or not _ends_with_pixels(content):
        return None
    size = image.size[::-1]
    return _exact(image, lambda: kornia_io.decode_image_png_u8(content, size, mode))


def _exact(image: Image.Image, decode: Callable[[], np.ndarray]) -> np.ndarray | None:
    """Return the result of ``decode`` if it succeeds and has the size in the header."""
    with suppress(Exception):  # the decoders define no error types
        pixels = decode()
        if pixels.shape[:2] == image.size[::-1]:
            return pixels
    return None


def _ends_with_pixels(png: bytes) -> bool:
    """Return whether no tags follow the pixels; Pillow then reads all tags with the header."""
    place, name = 8, b""  # skip the signature
    while place + 12 <= len(png):
        before = name
        size, name = struct.unpack_from(">I4s", png, place)
        if name == b"IEND":
            return before == b"IDAT"
        if before == b"IDAT" != name:
            return False
        place += 12 + size
    return False
