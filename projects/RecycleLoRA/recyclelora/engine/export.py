"""Export of trained parameters: the work of ``tools/export_trained.py``."""

from collections.abc import Sequence
from pathlib import Path

import torch

from .build import build_run
from .trained import save_trained


def export_trained(
    checkpoint: str, output: Path, *, config_file: str, overrides: Sequence[str], half: bool
) -> None:
    """Write the trained parameters of a checkpoint, without the base, to a file.

    Parameters
    ----------
    checkpoint : str
    output : Path
    config_file, overrides : str, sequence of str
        Of the run that wrote the checkpoint.
    half : bool
        Whether to store float16.
    """
    cpu = torch.device("cpu")
    model, _, iteration = build_run(config_file, overrides, checkpoint, device=cpu)
    save_trained(output, model=model, iteration=iteration, dtype=torch.float16 if half else None)
