"""Export of a run's backbone, called by ``tools/export_backbone.py``."""

from collections.abc import Sequence
from pathlib import Path

import torch

from recyclelora.engine.build import build_run

from .backbone import Difference, export_backbone


def export_trained_backbone(
    checkpoint: str, folder: Path, *, config_file: str, overrides: Sequence[str], layout: str
) -> list[Difference] | None:
    """Write the merged backbone of a checkpoint as a folder of another library.

    Parameters
    ----------
    checkpoint : str
        A checkpoint of a run, or a file of ``tools/export_trained.py``.
    folder : Path
        The folder to write.
    config_file, overrides : str, sequence of str
        The config file and the overrides of the run.
    layout : str
        The library's format; see :func:`export_backbone`.

    Returns
    -------
    list of Difference, or None
        The result of :func:`export_backbone`.
    """
    cpu = torch.device("cpu")
    model, _, _ = build_run(config_file, overrides, checkpoint, device=cpu)
    return export_backbone(model.backbone, folder, layout=layout)
