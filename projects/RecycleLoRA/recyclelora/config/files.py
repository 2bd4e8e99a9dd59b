"""Config files, shipped ones and your own: Python programs that define the sections of a run."""

import ast
import builtins
import difflib
import traceback
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recyclelora.common.paths import expand_path
from recyclelora.data.workers import TIMEOUT

from .objects import as_calls
from .validation import SECTIONS

_PACKAGE = Path(__file__).resolve().parents[1]


def config_names() -> list[str]:
    """Return the names of the shipped configs in alphabetical order.

    Returns
    -------
    list[str]
        The names, without suffix.
    """
    return sorted(path.stem for path in _shipped_folder().glob("*.py"))


def get_config(name: str) -> DictConfig:
    """Return a fresh copy of a shipped config.

    Every call executes the config again, so a change to one copy does not affect another. Your own
    config, in any folder, may start from a shipped one::

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
        If there is neither a file nor a shipped config of this name.
    ValueError
        If it is not a Python file, if it cannot be executed, or if it lacks a section.
    """
    if not file:
        raise ValueError("expected a config, got none: give --config-file, such as configs/demo.py")
    file = str(expand_path(file))
    if not Path(file).is_file():
        if file in config_names():
            return get_config(file)
        raise FileNotFoundError(
            f"no config at {file}: give the path of a config file, or the name of one in configs/, "
            "such as demo"
        )
    if not file.endswith(".py"):  # Detectron2 would read YAML and execute its tags
        raise ValueError(f"a config must be a Python file (.py), got {file}: see configs/")
    import_function = builtins.__import__
    try:
        loaded = LazyConfig.load(file)
    except Exception as error:  # a config is a program and can raise anything
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        where = f"{file}, line {lines[-1]}" if lines else file
        if isinstance(error, ImportError) and (module := _missing_relative_import(file)):
            raise ValueError(
                f"{where}: the config imports {module!r} from its own folder, where no such file "
                "exists: load a shipped config with recyclelora.config.get_config(NAME) instead"
            ) from error
        remedy = "correct it"
        if isinstance(error, OmegaConfBaseException):
            remedy = "replace an object that a config cannot store by a LazyCall that makes it"
        raise ValueError(
            f"{where}: the config does not load ({type(error).__name__}: {error}); {remedy}"
        ) from error
    finally:  # LazyConfig.load does not restore the function if the config raises
        builtins.__import__ = import_function
    missing = [section for section in SECTIONS if section not in loaded]
    if missing:
        raise ValueError(f"{file} lacks {', '.join(missing)}: see configs/demo.py")
    # Other names of the file, such as imports, are not part of the run. An override of them would
    # have no effect, so their keys are unknown.
    content = {section: as_calls(loaded[section], section) for section in SECTIONS}
    cfg = OmegaConf.create(content, flags={"allow_objects": True})
    if isinstance(cfg.dataloader, DictConfig):
        cfg.dataloader.setdefault("timeout", TIMEOUT)
    if isinstance(cfg.evaluation, DictConfig):
        cfg.evaluation.setdefault("checkpoint", None)
    return cfg


def _shipped_folder() -> Path:
    """Return ``recyclelora/configs`` of an installed wheel, or ``configs`` of the checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parents[2] / "configs"


def _missing_relative_import(file: str) -> str | None:
    """Return the first relative import of a config for which no file exists."""
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = (node.module or "").split(".")
            target = Path(file).resolve().parents[node.level - 1].joinpath(*parts)
            if not target.is_dir() and not target.with_name(f"{target.name}.py").is_file():
                return "." * node.level + (node.module or "")
    return None
