"""All runs of the paper's tables: the configs, and the rows that are overrides of a config."""

from pathlib import Path

from omegaconf import DictConfig

from recyclelora.reproduce.tables import Run
from recyclelora.reproduce.workspace import Workspace

ROOT = Path(__file__).parents[2]
SMALL = {"demo", "streets_to_real", "camvid_to_real"}  # on images available to everyone
CONFIG_NAMES = {file.stem for file in (ROOT / "configs").glob("*.py")} - SMALL
_WORKSPACE = Workspace(ROOT)
NAMES = sorted(_WORKSPACE.tables["paper"].rows)
"""Of all configs of the paper and all rows with overrides."""


def load(name: str) -> DictConfig:
    """Return a config, or the config of a row with its overrides."""
    return _WORKSPACE.config_of(Run("paper", name, 0))


def output_dir(name: str) -> str:
    """Return the output folder of a config, or that in the command of a row."""
    if name in CONFIG_NAMES:
        return load(name).train.output_dir
    (folder,) = (
        word.partition("=")[2]
        for word in _WORKSPACE.command(Run("paper", name, 0))
        if word.startswith("train.output_dir=")
    )
    return folder
