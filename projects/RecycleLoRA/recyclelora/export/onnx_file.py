"""Export of a segmentor as an ONNX file, and its comparison with the model in onnxruntime."""

import json
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

from .segmentor import Segmentor
from .traceable import TraceableSegmentor

if TYPE_CHECKING:
    import onnx

INPUT, SCORES, CLASSES = "images", "scores", "classes"
DTYPES = ("float32", "float16")
#: The smallest and the largest side of an image.
SIDES = (33, 8192)
#: The share of pixels that must have the same class in float32.
LEAST_EQUAL = 0.999
_MOST = 10  # photographs of each path that are compared
_MOST_BATCH = 1024
_MOST_BYTES = 2**31 - 2**20  # limit of a Protocol Buffers message
_EXAMPLE = (2, 3, 96, 160)  # different sides, so that exporters treat them as separate sizes


class Agreement(NamedTuple):
    """The agreement between an ONNX file and the model on one image.

    Parameters
    ----------
    size : tuple of int
        The height and width (H, W) of the image.
    equal : float
        The share of pixels with the same class.
    difference : float
        The largest difference of a score.
    """

    size: tuple[int, int]
    equal: float
    difference: float


def dynamic_shapes() -> tuple[dict[int, torch.export.Dim]]:
    """Return the variable dimensions of the images, for :func:`torch.export.export`.

    Returns
    -------
    tuple of dict
        The dimensions of the only argument.
    """
    least, most = SIDES
    return (
        {
            0: torch.export.Dim("batch", min=1, max=_MOST_BATCH),
            2: torch.export.Dim("height", min=least, max=most),
            3: torch.export.Dim("width", min=least, max=most),
        },
    )


def export_program(segmentor: Segmentor) -> torch.export.ExportedProgram:
    """Return the segmentor as a program of :func:`torch.export.export`.

    The module of the program maps images (B, 3, H, W) float32, RGB 0..255, to scores (B, C, H, W)
    and classes (B, H, W) uint8. It accepts any batch size and sides from 33 to 8192 pixels. Images
    are segmented at their own size, because the program does not contain the segmentor's protocol.

    Parameters
    ----------
    segmentor : Segmentor
        The segmentor.

    Returns
    -------
    torch.export.ExportedProgram
        The program.
    """
    return _program(TraceableSegmentor(segmentor.model), segmentor.device)


def _program(model: TraceableSegmentor, device: torch.device) -> torch.export.ExportedProgram:
    example = torch.zeros(_EXAMPLE, device=device)
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes=dynamic_shapes(), strict=False)


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
    for name, value in _metadata(segmentor).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, json.dumps(value)
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
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings that concern only the exporter
        program = torch.onnx.export(
            _program(model, torch.device("cpu")),
            dynamo=True,
            input_names=[INPUT],
            output_names=[SCORES, CLASSES],
            verbose=False,
        )
    return program.model_proto


def _metadata(segmentor: Segmentor) -> dict[str, object]:
    model = segmentor.model
    return {
        "classes": segmentor.class_names,
        "colors": segmentor.colors,
        "pixel_mean": model.pixel_mean.flatten().tolist(),
        "pixel_std": model.pixel_std.flatten().tolist(),
        "protocol": segmentor.protocol.as_dict(),
        "temperature": segmentor.temperature,
        "provenance": segmentor.provenance,
    }


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
        yield Agreement(
            size=image.shape[:2],
            equal=float((expected.argmax(1).numpy() == classes).mean()),
            difference=float((expected - torch.from_numpy(scores)).abs().max()),
        )


def check_onnx(
    segmentor: Segmentor, path: str | Path, photographs: Sequence[Path], *, exact: bool
) -> Iterator[str]:
    """Compare a file with the segmentor on photographs by :func:`compare_onnx`.

    Parameters
    ----------
    segmentor : Segmentor
        The segmentor.
    path : str or Path
        The ONNX file.
    photographs : sequence of Path
        Files, folders and patterns. The first ten photographs of each path are compared.
    exact : bool
        Whether at least 99.9 % of the pixels of each image must have the same class.

    Yields
    ------
    str
        One line per photograph.

    Raises
    ------
    ValueError
        If ``exact`` is set and fewer pixels of an image have the same class.
    """
    files = [file for one in photographs for file in list(find_photographs([one]).values())[:_MOST]]
    for file, found in zip(files, _agreements(segmentor, path, map(read_image, files))):
        line = (
            f"{file}: {100 * found.equal:.3f} % of the pixels have the same class, scores differ "
            f"by at most {found.difference:.2g}"
        )
        if exact and found.equal < LEAST_EQUAL:
            raise ValueError(f"{line}: expected at least {100 * LEAST_EQUAL:.1f} %")
        yield line
