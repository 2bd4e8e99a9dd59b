"""A segmentor as a program of ``torch.export``, and as a package that libtorch runs without Python.

``examples/cpp/segment`` is a C++ program that loads such a package.
"""

import json
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from torch._inductor.cpp_builder import get_cpp_compiler

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.paths import expand_path

from .segmentor import Segmentor
from .traceable import TraceableSegmentor

#: The smallest and the largest side of an image.
SIDES = (33, 8192)
_MOST_BATCH = 1024
_EXAMPLE = (2, 3, 96, 160)  # different sides, so that exporters treat them as separate sizes


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
    return trace(TraceableSegmentor(segmentor.model), segmentor.device)


def trace(model: TraceableSegmentor, device: torch.device) -> torch.export.ExportedProgram:
    """Return the program of a traceable model.

    Parameters
    ----------
    model : TraceableSegmentor
        The model.
    device : torch.device
        Its device.

    Returns
    -------
    torch.export.ExportedProgram
        The program.
    """
    example = torch.zeros(_EXAMPLE, device=device)
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes=dynamic_shapes(), strict=False)


def describe_segmentor(segmentor: Segmentor) -> dict[str, str]:
    """Return the data that is stored with an exported segmentor, each value as JSON.

    Parameters
    ----------
    segmentor : Segmentor
        The segmentor.

    Returns
    -------
    dict
        ``classes``, ``colors``, ``pixel_mean``, ``pixel_std``, ``protocol``, ``temperature`` and
        ``provenance``.
    """
    model = segmentor.model
    values = {
        "classes": segmentor.class_names,
        "colors": segmentor.colors,
        "pixel_mean": model.pixel_mean.flatten().tolist(),
        "pixel_std": model.pixel_std.flatten().tolist(),
        "protocol": segmentor.protocol.as_dict(),
        "temperature": segmentor.temperature,
        "provenance": segmentor.provenance,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def save_package(segmentor: Segmentor, path: str | Path) -> Path:
    """Compile a segmentor with AOTInductor and write the package, atomically.

    The package computes what the program of :func:`export_program` computes, for the same sizes of
    images, on the device of the segmentor. It contains machine code for this kind of processor and
    for the installed version of PyTorch. In Python, ``torch._inductor.aoti_load_package`` loads it.
    Loading a package executes the code in it, so load only packages that you trust.

    Parameters
    ----------
    segmentor : Segmentor
        The segmentor.
    path : str or Path
        The file, with the suffix ``.pt2``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the file name has another suffix, or if the model cannot be exported.
    RuntimeError
        If there is no C++ compiler.
    OSError
        If the file cannot be written.
    """
    path = expand_path(path)
    if path.suffix != ".pt2":
        raise ValueError(f"{path}: expected a file name with .pt2: add it")
    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise RuntimeError(
            "AOTInductor needs a C++ compiler, but none was found: install g++, or name one with "
            "the environment variable CXX"
        ) from error
    program = export_program(segmentor)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings that concern only PyTorch's developers
        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(Path(folder, "model.pt2"))
        )
        with atomic_write(path, sync=True) as temporary:
            shutil.copyfile(package, temporary)
    return path
