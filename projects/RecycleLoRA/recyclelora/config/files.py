"""Config files: Python programs whose sections define a run."""

import traceback
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from .validation import SECTIONS


def read_config(file: str) -> DictConfig:
    """Execute a config file and return its sections.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a Python file, does not load, or lacks a section.
    """
    if not file:
        raise ValueError("no config: give --config-file, for instance configs/demo.py")
    if not Path(file).is_file():
        raise FileNotFoundError(f"no config at {file}: see configs/ for those that exist")
    if not file.endswith(".py"):  # Detectron2 would read YAML and execute what its tags name
        raise ValueError(f"a config is a Python file (.py), got {file}: see configs/")
    try:
        loaded = LazyConfig.load(file)
    except Exception as error:  # a program in which anything may be wrong
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        where = f"{file}, line {lines[-1]}" if lines else file
        raise ValueError(
            f"{where}: the config does not load ({type(error).__name__}: {error}); correct it"
        ) from error
    missing = [section for section in SECTIONS if section not in loaded]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}: see configs/demo.py")
    # What a config imported to build its sections is not part of the run: an override of it would
    # have no effect, so its keys are unknown.
    return OmegaConf.create({s: loaded[s] for s in SECTIONS}, flags={"allow_objects": True})
