"""A segmentor as a program of ``torch.export``, and the data that is stored with exported files."""

import json

import torch

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
