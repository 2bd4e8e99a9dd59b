"""Export of a run's segmentor: the work of ``tools/export_segmentor.py``."""

from collections.abc import Sequence
from pathlib import Path

import torch

import recyclelora
from recyclelora.common.digests import file_digest
from recyclelora.common.paths import expand_path
from recyclelora.config.objects import instantiate
from recyclelora.engine.build import build_run

from .segmentor import Segmentor


def export_trained_segmentor(
    checkpoint: str, folder: Path, *, config_file: str, overrides: Sequence[str]
) -> Segmentor:
    """Write the segmentor of a checkpoint as a folder, and return it.

    Parameters
    ----------
    checkpoint : str
        A checkpoint of a run, or a file of ``tools/export_trained.py``.
    folder : Path
        Of :meth:`Segmentor.save_pretrained`.
    config_file, overrides : str, sequence of str
        Of the run.
    """
    cpu = torch.device("cpu")
    model, cfg, iteration = build_run(config_file, overrides, checkpoint, device=cpu)
    file = expand_path(checkpoint)
    segmentor = Segmentor.from_model(
        model,
        protocol=instantiate(cfg.evaluation.protocol),
        provenance={
            "recyclelora": recyclelora.__version__,
            "config": Path(config_file).name,
            "checkpoint": file.name,
            "checkpoint_sha256": file_digest(file),
            "iteration": iteration,
        },
    )
    segmentor.save_pretrained(folder)
    return segmentor
