"""Reading of class ids from label files; files whose ids a decoder would change are refused."""

import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .decoding import decoding, load, read_picture, transpose, transposition, upright
from .fast_decoding import decode_indices

#: Pillow's modes for 16-bit and 32-bit grey.
GREY_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ID_MODES = ("L", "P", "1", *GREY_16)
_CHANNEL_MODES = ("RGB", "RGBA", "RGBX")
_LOSSY = ("JPEG", "MPO")
# TIFF tags and their values.
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
# None, CCITT (three), LZW, Deflate (two), PackBits, LZMA and Zstandard. Others may be lossy.
_LOSSLESS = (1, 2, 3, 4, 5, 8, 32946, 32773, 34925, 50000)


def read_ids(file: str | Path, channel: int | None = None) -> np.ndarray:
    """Read the ids of a label file as they are stored; a palette file contains indices.

    An EXIF orientation of the file is applied, as for its image.

    Parameters
    ----------
    file : str or Path
        The label file, in a lossless format.
    channel : {0, 1, 2}, optional
        The channel with the ids, for labels in a colour file.

    Returns
    -------
    ndarray
        The ids (H, W), integers of 8, 16 or 32 bits, signed if those in the file are.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, damaged or not a map of ids, or if its encoding does not preserve
        the ids. The message contains its name.
    """
    image, content = read_picture(file)
    ids = decode_indices(image, content) if channel is None else None
    if ids is not None:
        return transpose(ids, transposition(image))
    load(image, file)
    _check_lossless(file, image, content)
    if channel is not None:
        return _read_channel(file, image, content, channel)
    if image.mode not in _ID_MODES:
        raise ValueError(
            f"{file}: expected a map of class ids (grey or palette), got a picture of mode "
            f"{image.mode}; point the dataset at the id maps, or name the channel in its label map"
        )
    _check_grey(file, image, content)
    signed = _SIGNED in _tiff_tag(image, _SAMPLE_FORMAT) and image.mode == "L"
    ids = np.asarray(upright(image))
    if signed:  # Pillow does not distinguish signed from unsigned ids
        return ids.view(np.int8)
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def _read_channel(file: str | Path, image: Image.Image, content: bytes, channel: int) -> np.ndarray:
    if image.mode not in _CHANNEL_MODES:
        raise ValueError(
            f"{file}: expected a colour file with the class in channel {channel}, got mode "
            f"{image.mode}; give the label map channel=None for grey and palette labels, or save "
            "the file as RGB"
        )
    if image.format == "BMP" and struct.unpack_from("<H", content, 28)[0] < 24:
        raise ValueError(
            f"{file}: expected a colour file of 8 or 16 bits per channel, got a BMP of 16 bits a "
            "pixel, whose values are rounded; save the labels as PNG from their source"
        )
    with decoding(file):
        # Pillow keeps only the high byte of 16-bit colours. cv2.imread is not used because it
        # cannot open every file name.
        colours = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if colours is None or colours.ndim != 3 or colours.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"{file}: expected a colour file of 8 or 16 bits per channel, got one that OpenCV does "
            "not read as such; save the labels as PNG from their source"
        )
    ids = colours[..., 2 - channel]  # OpenCV orders channels blue, green, red
    high = ids >> 8 if ids.dtype == np.uint16 else ids
    if not np.array_equal(high, np.asarray(image)[..., channel]):
        raise ValueError(
            f"{file}: expected a colour file whose values every program reads alike, got one that "
            "Pillow and OpenCV read differently (orientation, colour space or depth); save the "
            "labels as PNG from their source"
        )
    return np.asarray(upright(Image.fromarray(ids)))


def _check_lossless(file: str | Path, image: Image.Image, content: bytes) -> None:
    kind = None
    if image.format in _LOSSY:
        kind = "a JPEG"
    elif image.format == "WEBP" and b"VP8 " in _webp_chunks(content):
        kind = "a lossy WebP"
    elif any(number not in _LOSSLESS for number in _tiff_tag(image, _COMPRESSION)):
        kind = f"a TIFF with {image.info.get('compression', 'unknown')} compression"
    if kind is not None:
        raise ValueError(
            f"{file}: expected a lossless label file, got {kind}, which changes ids; save the "
            "labels as PNG from their source"
        )


def _check_grey(file: str | Path, image: Image.Image, content: bytes) -> None:
    """Raise an error if a decoder would scale or invert the stored values."""
    got = None
    bits = 8
    if image.format == "PNG" and image.mode == "L":
        bits = content[24]
    elif image.format == "TIFF" and image.mode == "L":
        bits = min(_tiff_tag(image, _BITS), default=8)
    if bits in (2, 4):
        got = f"grey of {bits} bits, whose values decoders multiply by {255 // (2**bits - 1)}"
    elif _WHITE_IS_ZERO in _tiff_tag(image, _PHOTOMETRIC):
        got = "a TIFF in which 0 means white, whose values decoders invert"
    elif image.format == "PPM" and image.mode == "1":
        got = "a PBM, in which 1 means black, whose values decoders invert"
    elif image.format == "PPM" and (most := _pgm_maximum(content)) not in (255, 65535):
        got = f"a PGM with the maximum {most}, whose values decoders scale"
    if got is not None:
        raise ValueError(
            f"{file}: expected ids that are stored unchanged, got {got}; save the labels as PNG "
            "of 8 or 16 bits from their source"
        )


def _tiff_tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    """Return the values of a tag, or none if the image is not a TIFF or lacks the tag."""
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    value = None if tags is None else tags.get(tag)
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def _webp_chunks(content: bytes) -> Iterator[bytes]:
    """Yield the names of the chunks of a WebP file."""
    place = 12  # after "RIFF", the size and "WEBP"
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        yield name
        place += 8 + size + size % 2


def _pgm_maximum(content: bytes) -> int | None:
    """Return the maximum in a PGM header: the fourth word that is not a comment."""
    words = [word for line in content[:4096].split(b"\n") for word in line.split(b"#")[0].split()]
    return int(words[3]) if len(words) > 3 and words[3].isdigit() else None
