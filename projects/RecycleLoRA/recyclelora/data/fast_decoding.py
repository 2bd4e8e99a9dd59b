"""Decode PNG by kornia-rs and JPEG by simplejpeg (the extra ``fast``): the same values as Pillow's.

Pillow stays the reference. It reads the header of every file, and decodes every file that the fast
decoders refuse. A damaged file is therefore reported by the same message with and without them.
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

# Pillow can be built with another libjpeg, which rounds differently.
_SAME_JPEG = features.check("libjpeg_turbo")


def is_installed() -> bool:
    """Return whether the fast decoders are installed."""
    return kornia_io is not None


def decode_rgb(image: Image.Image, content: bytes) -> np.ndarray | None:
    """Decode a picture as RGB; an alpha channel is dropped.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture, of which Pillow has read the header alone.
    content : bytes
        The content of its file.

    Returns
    -------
    ndarray or None
        (H, W, 3) uint8 as stored, without the EXIF orientation. None if Pillow has to decode the
        file: the fast decoders are not installed, or the file is damaged, or it is neither a JPEG
        in colour nor a PNG of 8 bits in RGB or RGBA.
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
    """Decode the grey values or palette indices of a PNG of 8 bits.

    Parameters
    ----------
    image, content
        As of :func:`decode_rgb`.

    Returns
    -------
    ndarray or None
        (H, W) uint8 as stored; None if Pillow has to decode the file.
    """
    if kornia_io is None or image.mode not in ("L", "P"):
        return None
    indices = _decode_png(image, content, "mono")
    return None if indices is None else indices[..., 0]


def _decode_png(image: Image.Image, content: bytes, mode: str) -> np.ndarray | None:
    """Decode a PNG of 8 bits a channel; other bits and colours are refused by kornia-rs."""
    if image.format != "PNG" or not _ends_with_pixels(content):
        return None
    size = image.size[::-1]
    return _exact(image, lambda: kornia_io.decode_image_png_u8(content, size, mode))


def _exact(image: Image.Image, decode: Callable[[], np.ndarray]) -> np.ndarray | None:
    """What ``decode`` returns, if it succeeds and has the size that Pillow has read."""
    with suppress(Exception):  # the decoders have no types of their own for their errors
        pixels = decode()
        if pixels.shape[:2] == image.size[::-1]:
            return pixels
    return None


def _ends_with_pixels(png: bytes) -> bool:
    """Whether no chunk but the end follows the pixels: Pillow has read all tags with the header."""
    place, name = 8, b""  # after the signature
    while place + 12 <= len(png):
        before = name
        size, name = struct.unpack_from(">I4s", png, place)
        if name == b"IEND":
            return before == b"IDAT"
        if before == b"IDAT" != name:
            return False
        place += 12 + size
    return False
