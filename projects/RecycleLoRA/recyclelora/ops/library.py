"""The compiled library of operators: where it lies, loading it once, what it was built for."""

import functools
import logging
from pathlib import Path

import torch

logger = logging.getLogger(__name__)


def library_path() -> Path:
    """Where `pip install` puts the compiled library; the file need not exist."""
    return Path(__file__).parents[1] / "_C.abi3.so"


@functools.cache
def load() -> bool:
    """Load the compiled operators into ``torch.ops.recyclelora``, once per process.

    Returns
    -------
    bool
        Whether they are loaded. Without the library one log line says so, and the plain PyTorch
        and SciPy operators do the work.

    Raises
    ------
    RuntimeError
        If the library is there but does not load, as after a change of torch's version.
    """
    path = library_path()
    if not path.is_file():
        logger.info("%s is absent: `pip install --no-build-isolation -e .` builds it", path)
        return False
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise RuntimeError(
            f"Expected {path} to load into torch {torch.__version__}, but it does not; it was "
            "probably built for another version: run `pip install --no-build-isolation -e .` again"
        ) from error
    return True


def build_info() -> dict[str, str]:
    """What the compiled library was built with; empty without one.

    Keys: ``compiler``, ``cxx`` (the value of ``__cplusplus``), ``torch`` (the version of its
    headers) and ``cuda`` (the toolkit's version, or "none").

    >>> build_info()  # doctest: +SKIP
    {'compiler': 'GCC 12.2.0', 'cxx': '201703', 'torch': '2.11.0', 'cuda': 'none'}
    """
    if not load():
        return {}
    return dict(field.split("=", 1) for field in torch.ops.recyclelora.build_info().split(";"))
