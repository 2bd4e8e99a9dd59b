"""Export of a segmentor as an ONNX file, and its comparison with the model in onnxruntime."""

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.paths import expand_path
from recyclelora.common.validation import short_repr
from recyclelora.data import read_image
from recyclelora.engine.media_files import find_photographs
from recyclelora.evaluation import Protocol
from recyclelora.evaluation.protocol import UNLISTED

from .program import SIDES, describe_segmentor, trace
from .segmentor import Segmentor
from .traceable import TraceableSegmentor

if TYPE_CHECKING:
    import onnx

INPUT, SCORES, CLASSES = "images", "scores", "classes"
DTYPES = ("float32", "float16")
#: The share of pixels that must have the same class, by dtype.
LEAST_EQUAL = {"float32": 0.999, "float16": 0.99}
#: The largest median difference of the scores, by dtype.
MOST_MEDIAN = {"float32": 1e-4, "float16": 0.01}
_MOST = 10  # photographs of each path that are compared
_LONGEST_COMPARED = 1448
_MOST_BYTES = 2**31 - 2**20  # limit of a Protocol Buffers message


class Agreement(NamedTuple):
    """The agreement between an ONNX file and the model on one image.

    Parameters
    ----------
    size : tuple of int
        The height and width (H, W) of the image.
    equal : float
        The share of pixels with the same class.
    largest, median : float
        The largest and the median difference between the scores of a pixel. The difference of a
        pixel is that of the class whose scores differ most. Both are NaN if a score is NaN.
    """

    size: tuple[int, int]
    equal: float
    largest: float
    median: float


def save_onnx(segmentor: Segmentor, path: str | Path, *, dtype: str = "float32") -> Path:
    """Write a segmentor as one ONNX file, atomically.

    The input ``images`` is (batch, 3, height, width) float32, RGB 0..255, with any batch size and
    sides from 33 to 8192 pixels. The graph normalises and pads it. The outputs are ``scores``
    (batch, classes, height, width) float32 and ``classes`` (batch, height, width) uint8. The
    metadata contains ``classes``, ``colors``, ``pixel_mean``, ``pixel_std``, ``protocol``,
    ``temperature`` and ``provenance`` as JSON. Callers must not normalise the images again.

    Parameters
    ----------
    segmentor : Segmentor
        The segmentor.
    path : str or Path
        The file, with the suffix ``.onnx``.
    dtype : {"float32", "float16"}
        The dtype of weights and computation. With float16, the pixel decoder and the probabilities
        remain in float32.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        If onnxscript is not installed.
    ValueError
        If the model cannot be exported or is too large for one file.
    OSError
        If the file cannot be written.
    """
    path = expand_path(path)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {short_repr(dtype)}")
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: expected a file name with .onnx: add it")
    model = _onnx_model(TraceableSegmentor(segmentor.model, half=dtype == "float16").cpu())
    for name, value in describe_segmentor(segmentor).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    size = model.ByteSize()
    if size > _MOST_BYTES:
        raise ValueError(f"expected a model of at most 2 GB, got {size / 1e9:.1f} GB: use float16")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, sync=True) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return path


def _onnx_model(model: TraceableSegmentor) -> "onnx.ModelProto":
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "the ONNX export needs onnxscript: pip install 'recyclelora[onnx]'"
        ) from error
    with torch.no_grad(), _without_messages():
        program = torch.onnx.export(
            trace(model, torch.device("cpu")),
            dynamo=True,
            input_names=[INPUT],
            output_names=[SCORES, CLASSES],
            verbose=False,
        )
    return program.model_proto


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Hide the messages of the exporter, which concern only its developers."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def compare_onnx(
    segmentor: Segmentor, path: str | Path, images: Sequence[np.ndarray]
) -> list[Agreement]:
    """Compare a file of :func:`save_onnx` in onnxruntime with the segmentor in float32.

    Parameters
    ----------
    segmentor : Segmentor
        The segmentor.
    path : str or Path
        The ONNX file.
    images : sequence of ndarray
        Images (H, W, 3), uint8 RGB, which are segmented at their own size.

    Returns
    -------
    list of Agreement
        The agreement on each image.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    """
    return list(_agreements(segmentor, path, images))


def _agreements(
    segmentor: Segmentor, path: str | Path, images: Iterable[np.ndarray]
) -> Iterator[Agreement]:
    """Yield the agreement on each image; the file is opened once."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "the comparison needs onnxruntime: pip install 'recyclelora[onnx]'"
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for image in images:
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        scores, classes = session.run([SCORES, CLASSES], {INPUT: batch.numpy()})
        expected = segmentor.model.semantic_logits(batch.to(segmentor.device)).cpu()
        difference = (expected - torch.from_numpy(scores)).abs().amax(dim=1)
        yield Agreement(
            size=image.shape[:2],
            equal=float((expected.argmax(1).numpy() == classes).mean()),
            largest=float(difference.max()),
            median=float(difference.median()),
        )


def photographs_to_compare(paths: Sequence[Path]) -> list[Path]:
    """Return the first ten photographs of each path.

    Parameters
    ----------
    paths : sequence of Path
        Files, folders and patterns; see :func:`recyclelora.engine.media_files.find_media`.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    FileNotFoundError, ValueError
        If a path does not exist or contains no photograph.
    """
    return [file for one in paths for file in list(find_photographs([one]).values())[:_MOST]]


def _at_its_size(file: Path, protocol: Protocol) -> np.ndarray:
    """Return a photograph at the size at which a protocol segments it."""
    image = read_image(file)
    long = max(protocol.input_size(image.shape[1], image.shape[0], UNLISTED))
    protocol = dataclasses.replace(protocol, long_side=min(long, _LONGEST_COMPARED))
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    resized = protocol.prepare(pixels, torch.zeros(image.shape[:2]), UNLISTED)[0]
    if min(resized.shape[1:]) < SIDES[0]:
        raise ValueError(
            f"{file}: expected a photograph whose sides have at least {SIDES[0]} pixels after "
            f"resizing, got {resized.shape[2]}x{resized.shape[1]}: compare another one"
        )
    return resized.permute(1, 2, 0).contiguous().numpy()


def check_onnx(
    segmentor: Segmentor, path: str | Path, photographs: Sequence[Path], *, dtype: str
) -> Iterator[str]:
    """Compare a file with the segmentor on photographs by :func:`compare_onnx`.

    Parameters
    ----------
    segmentor : Segmentor
        The segmentor.
    path : str or Path
        The ONNX file.
    photographs : sequence of Path
        The photographs, for instance those of :func:`photographs_to_compare`. Each is resized to
        the size at which the segmentor's protocol segments it, and to a long side of at most 1448
        pixels (2 megapixels), because attention in onnxruntime needs memory for all pairs of
        tokens.
    dtype : {"float32", "float16"}
        The dtype of :func:`save_onnx`. In float32, at least 99.9 % of the pixels of each image must
        have the same class, and the median difference of the scores must be at most 1e-4. In
        float16, the limits are 99 % and 0.01.

    Yields
    ------
    str
        One line per photograph.

    Raises
    ------
    ValueError
        If an image exceeds these limits, or its scores are NaN, or if its short side is less than
        33 pixels.
    """
    images = (_at_its_size(file, segmentor.protocol) for file in photographs)
    for file, found in zip(photographs, _agreements(segmentor, path, images), strict=True):
        line = (
            f"{file}: {100 * found.equal:.3f} % of the pixels have the same class, the scores of a "
            f"pixel differ by {found.median:.2g} in the median and by at most {found.largest:.2g}"
        )
        # The negated form also refuses NaN.
        if not (found.equal >= LEAST_EQUAL[dtype] and found.median <= MOST_MEDIAN[dtype]):
            remedy = ": use float32" if dtype == "float16" else ""
            raise ValueError(
                f"{line}: expected at least {100 * LEAST_EQUAL[dtype]:g} % and at most "
                f"{MOST_MEDIAN[dtype]:g} in the median{remedy}"
            )
        yield line
