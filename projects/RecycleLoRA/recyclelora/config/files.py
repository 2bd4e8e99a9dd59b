"""Config files: Python programs whose sections define a run, shipped or of one's own."""

import ast
import builtins
import difflib
import traceback
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from recyclelora.data.workers import TIMEOUT

from .validation import SECTIONS

_PACKAGE = Path(__file__).resolve().parents[1]


def config_names() -> list[str]:
    """Return the names of the shipped configs in alphabetical order."""
    return sorted(path.stem for path in _shipped_folder().glob("*.py"))


def get_config(name: str) -> DictConfig:
    """Return a fresh copy of a shipped config.

    Every call executes the config anew, so a change to one copy does not change another. A config
    of one's own may start from it, in any folder::

        from recyclelora.config import get_config

        cfg = get_config("streets_to_real")
        train, model, optimizer = cfg.train, cfg.model, cfg.optimizer
        schedule, dataloader, evaluation = cfg.schedule, cfg.dataloader, cfg.evaluation
        train.max_iter = 600

    Parameters
    ----------
    name : str
        The name of a file in ``configs/`` without its suffix, see :func:`config_names`.

    Returns
    -------
    DictConfig
        The sections ``train``, ``model``, ``optimizer``, ``schedule``, ``dataloader`` and
        ``evaluation``.

    Raises
    ------
    ValueError
        If no shipped config has this name.

    Examples
    --------
    >>> cfg = get_config("recyclelora_dinov2l_g2cbm")
    >>> cfg.model.backbone.r_main, cfg.model.backbone.r_sub
    (32, 4)
    """
    names = config_names()
    if name not in names:
        nearest = difflib.get_close_matches(str(name), names, n=3, cutoff=0.0)
        raise ValueError(
            f"expected the name of a shipped config, got {name!r}: the nearest are "
            f"{', '.join(nearest)}; recyclelora.config.config_names() lists all"
        )
    return read_config(str(_shipped_folder() / f"{name}.py"))


def read_config(file: str) -> DictConfig:
    """Execute a config and return its sections.

    Parameters
    ----------
    file : str
        The path of a config, or the name of a shipped one. An existing file takes precedence.

    Returns
    -------
    DictConfig
        The sections as in :func:`get_config`.

    Raises
    ------
    FileNotFoundError
        If there is no such file and no shipped config of this name.
    ValueError
        If it is not a Python file, does not load, or lacks a section.
    """
    if not file:
        raise ValueError("no config: give --config-file, for instance configs/demo.py")
    if not Path(file).is_file():
        if file in config_names():
            return get_config(file)
        raise FileNotFoundError(
            f"no config at {file}: give the path of a config file, or the name of one in configs/, "
            "such as demo"
        )
    if not file.endswith(".py"):  # Detectron2 would read YAML and execute what its tags name
        raise ValueError(f"a config is a Python file (.py), got {file}: see configs/")
    import_function = builtins.__import__
    try:
        loaded = LazyConfig.load(file)
    except Exception as error:  # a config is a program and can raise anything
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        where = f"{file}, line {lines[-1]}" if lines else file
        if isinstance(error, ImportError) and (module := _missing_relative_import(file)):
            raise ValueError(
                f"{where}: the relative import of {module!r} reaches only files beside the config, "
                "and there is none of this name: start from a shipped config by "
                "recyclelora.config.get_config(NAME) instead"
            ) from error
        raise ValueError(
            f"{where}: the config does not load ({type(error).__name__}: {error}); correct it"
        ) from error
    finally:  # LazyConfig.load leaves its own function there if the config raises
        builtins.__import__ = import_function
    missing = [section for section in SECTIONS if section not in loaded]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}: see configs/demo.py")
    # Other names of the file, such as imports, are not part of the run: an override of them would
    # have no effect, so their keys are unknown.
    cfg = OmegaConf.create({s: loaded[s] for s in SECTIONS}, flags={"allow_objects": True})
    if isinstance(cfg.evaluation, DictConfig):  # a key that configs may leave out
        cfg.evaluation.setdefault("checkpoint", None)
    if isinstance(cfg.dataloader, DictConfig):
        cfg.dataloader.setdefault("timeout", TIMEOUT)
    return cfg


def _shipped_folder() -> Path:
    """``recyclelora/configs`` of an installed wheel, else ``configs`` of the checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parents[2] / "configs"


def _missing_relative_import(file: str) -> str | None:
    """The first relative import of a config that names no file, as it stands there."""
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = (node.module or "").split(".")
            target = Path(file).resolve().parents[node.level - 1].joinpath(*parts)
            if not target.is_dir() and not target.with_name(f"{target.name}.py").is_file():
                return "." * node.level + (node.module or "")
    return None
