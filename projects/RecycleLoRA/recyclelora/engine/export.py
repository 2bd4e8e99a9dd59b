"""Export of trained parameters, called by ``tools/export_trained.py``."""

from collections.abc import Sequence
from pathlib import Path

import torch

from .build import build_run
from .trained import save_trained


def export_trained(
    checkpoint: str, output: Path, *, config_file: str, overrides: Sequence[str], half: bool
) -> None:
    """Write the trained parameters of a checkpoint to a file, without the base.

    Parameters
    ----------
    checkpoint : str
        The checkpoint.
    output : Path
        The file to write.
    config_file, overrides : str, sequence of str
        The config file and the overrides of the run that wrote the checkpoint.
    half : bool
        Whether to store the tensors as float16.
    """
    cpu = torch.device("cpu")
    model, _, iteration = build_run(config_file, overrides, checkpoint, device=cpu)
    save_trained(output, model=model, iteration=iteration, dtype=torch.float16 if half else None)
