"""Opening and decoding of picture files, with a clear message for damaged or unsuitable files."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from recyclelora.common.files import is_out_of_files, is_transient, retry_transient

#: Larger pictures are refused, because a file of a few kilobytes can declare any size.
MAX_PIXELS = 80_000_000
# Larger files are refused. 80 megapixels of four 16-bit channels take 640 MB.
_MAX_BYTES = 10**9
# Formats are recognised by the content. Some are excluded: for EPS, Pillow starts an interpreter.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_LFS = b"version https://git-lfs"  # start of pointer files in clones without Git LFS
# Transpositions by EXIF orientation. ImageOps.exif_transpose is not used: it writes all tags, which
# raises an error if any of them is damaged, and it copies the pixels of upright images.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The transpositions that swap width and height.
SWAPPING = [_TRANSPOSITIONS[orientation] for orientation in (5, 6, 7, 8)]

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is lower


@contextmanager
def decoding(file: str | Path) -> Iterator[None]:
    """Convert every error of a decoder to a message with the name of the file.

    Parameters
    ----------
    file : str or Path
        The file.

    Raises
    ------
    ValueError
        If the code in the ``with`` block raises an error that is not transient.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{file}: expected a picture of at most {MAX_PIXELS // 10**6} megapixels, got more "
            f"than {2 * Image.MAX_IMAGE_PIXELS // 10**6}; make it smaller, with its label"
        ) from error
    except Exception as error:  # decoders raise errors of many types
        if is_transient(error) or is_out_of_files(error):
            raise
        with suppress(OSError), open(file, "rb") as content:
            if content.read(len(_LFS)) == _LFS:
                raise ValueError(
                    f"{file}: expected a complete picture, got a Git LFS pointer; run 'git lfs "
                    "pull' in its folder"
                ) from error
        # Pillow's message contains the name of an object instead of the file name.
        unknown = isinstance(error, UnidentifiedImageError)
        formats = f"unknown format: expected one of {', '.join(_FORMATS)}"
        reason = formats if unknown else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{file}: expected a complete picture, got a file that cannot be decoded "
            f"({reason}); restore the file from its source"
        ) from error


def open_picture(file: str | Path, content: bytes | None = None) -> Image.Image:
    """Read and validate the header of a picture; the pixels are not decoded.

    Parameters
    ----------
    file : str or Path
        A PNG, JPEG, TIFF, BMP, GIF, WebP or PPM file with one frame and any suffix.
    content : bytes, optional
        The content of the file, if it has already been read.

    Returns
    -------
    PIL.Image.Image
        The picture.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, damaged or of another kind. The message contains its name.
    """
    _check_file(file)
    with decoding(file):
        image = Image.open(file if content is None else io.BytesIO(content), formats=_FORMATS)
        several = image.format != "MPO" and getattr(image, "is_animated", False)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{file}: expected a picture of at most {MAX_PIXELS // 10**6} megapixels, got "
            f"{width}x{height}; make it smaller, with its label"
        )
    if several:
        raise ValueError(
            f"{file}: expected one picture, got several frames or pages; save the right one as a "
            "separate file"
        )
    return image


def read_picture(file: str | Path) -> tuple[Image.Image, bytes]:
    """Read a picture file and validate its header; transient errors of the disk are retried.

    Parameters
    ----------
    file : str or Path
        The file.

    Returns
    -------
    image : PIL.Image.Image
        The picture without its pixels, which :func:`load` decodes.
    content : bytes
        The content of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As in :func:`open_picture`.
    """
    # The content is read first, because a decoder would report a transient error as damage.
    content = retry_transient(lambda: _content(file), file)
    return open_picture(file, content), content


def load(image: Image.Image, file: str | Path) -> Image.Image:
    """Decode the pixels of a picture.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture.
    file : str or Path
        Its file, for the error message.

    Returns
    -------
    PIL.Image.Image
        The picture.

    Raises
    ------
    ValueError
        If the pixels are damaged.
    """
    with decoding(file):
        image.load()
    return image


def _content(file: str | Path) -> bytes:
    _check_file(file)
    with decoding(file):
        return Path(file).read_bytes()


def _check_file(file: str | Path) -> None:
    path = Path(file)
    if not path.is_file():
        if not path.exists():
            raise FileNotFoundError(
                f"{file}: no such file; restore it, or remove the other file of its pair"
            )
        raise ValueError(
            f"{file}: expected a picture, got a folder or device of that name; rename it"
        )
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(
            f"{file}: expected a picture of at most {_MAX_BYTES // 10**6:,} MB, got "
            f"{size // 10**6:,} MB; make it smaller, with its label"
        )


def transposition(image: Image.Image, decoded: bool = True) -> Image.Transpose | None:
    """Return the transposition that turns the stored pixels upright.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture.
    decoded : bool
        Whether all tags of the picture have been read. Otherwise this function decodes a PNG,
        because its tags may follow the pixels.

    Returns
    -------
    PIL.Image.Transpose or None
        The transposition; None if the pixels are upright.
    """
    try:
        # PngImageFile.getexif decodes the pixels; the method of its base class does not.
        tags = Image.Image.getexif(image) if decoded else image.getexif()
        return _TRANSPOSITIONS.get(tags.get(ExifTags.Base.Orientation))
    except Exception as error:  # damaged tags are ignored, as in image viewers
        if is_transient(error):
            raise
        return None


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of a picture.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture.

    Returns
    -------
    PIL.Image.Image
        The upright picture; ``image`` itself if it is upright.
    """
    needed = transposition(image)
    return image if needed is None else image.transpose(needed)


def transpose(pixels: np.ndarray, needed: Image.Transpose | None) -> np.ndarray:
    """Apply a transposition to pixels.

    Parameters
    ----------
    pixels : ndarray
        Pixels (H, W) or (H, W, 3).
    needed : PIL.Image.Transpose or None
        The transposition.

    Returns
    -------
    ndarray
        The transposed pixels; ``pixels`` itself without a transposition.
    """
    if needed is None:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(needed))
