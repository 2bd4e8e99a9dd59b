"""Export of trained parameters: the work of ``tools/export_trained.py``."""

from collections.abc import Sequence
from pathlib import Path

import torch

from .build import build_from_checkpoint, load_config
from .checkpoint import read_checkpoint
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
    content = read_checkpoint(checkpoint)
    cfg = load_config(config_file, overrides)
    cpu = torch.device("cpu")
    model = build_from_checkpoint(cfg, content, source=checkpoint, device=cpu)
    dtype = torch.float16 if half else None
    save_trained(output, model=model, iteration=content["iteration"], dtype=dtype)
