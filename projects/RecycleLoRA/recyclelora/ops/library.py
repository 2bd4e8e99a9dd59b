"""The compiled library of operators: where it lies, and loading it once."""

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
        logger.info("%s is absent: run `pip install --no-build-isolation -e .` to build it", path)
        return False
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise RuntimeError(
            f"{path} does not load into torch {torch.__version__}; it was probably built for "
            f"another version: run `pip install --no-build-isolation -e .` again ({error})"
        ) from error
    return True
