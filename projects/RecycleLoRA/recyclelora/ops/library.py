"""The compiled operators: paths, build information and loading."""

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
REBUILD = "run `pip install --no-build-isolation -e .` to rebuild it for the installed torch"


def library_path() -> Path:
    """Return the path of the compiled operators, for ``torch.ops.load_library``.

    The file does not exist if the package was not built.

    Returns
    -------
    Path
        The path.

    Examples
    --------
    >>> import recyclelora
    >>> torch.ops.load_library(recyclelora.library_path())
    >>> torch.ops.recyclelora.rrqr(torch.eye(2), 1, 1)[0]
    tensor([0, 1])
    """
    return PACKAGE / "_C.abi3.so"


def include_path() -> Path:
    """Return the folder of the C++ headers, for ``#include <recyclelora/rrqr.h>``.

    Returns
    -------
    Path
        The folder, an include path for the compiler.
    """
    return PACKAGE / "include"


def cmake_path() -> Path:
    """Return the folder of the package files for CMake's ``find_package(RecycleLoRA)``.

    Returns
    -------
    Path
        The folder. Pass it to CMake as ``-DRecycleLoRA_DIR=...`` or in ``CMAKE_PREFIX_PATH``.
    """
    return PACKAGE / "cmake"


def build_info() -> dict[str, str]:
    """Return how the library was compiled.

    Returns
    -------
    dict
        The keys are ``compiler``, ``cxx`` (the value of ``__cplusplus``), ``torch`` (the version of
        its headers), ``cxx11_abi``, ``cuda`` (the version of the toolkit) and ``architectures`` (as
        in TORCH_CUDA_ARCH_LIST). The last two are "none" for a library without CUDA. The dict is
        empty if there is no library.

    Examples
    --------
    >>> build_info()  # doctest: +SKIP
    {'compiler': 'GCC 12.2.0', 'cxx': '201703L', 'torch': '2.11.0', 'cxx11_abi': '1',
     'cuda': '13.0', 'architectures': '9.0'}
    """
    path = library_path()
    if not path.is_file():
        return {}
    # The information is read from the file, because loading a library for another torch may crash.
    found = re.search(rb"recyclelora was built with ([^\0]*)\0", path.read_bytes())
    if not found:
        return {}
    return dict(field.split("=", 1) for field in found.group(1).decode().split(";"))


@functools.cache
def load() -> bool:
    """Load the compiled operators into ``torch.ops.recyclelora``, once per process.

    Returns
    -------
    bool
        Whether they are loaded. If there is no library, one log line reports this and the operators
        run on PyTorch and SciPy.

    Raises
    ------
    RuntimeError
        If the library was built for another version of PyTorch or CUDA, or cannot be loaded.
    """
    path = library_path()
    if not path.is_file():
        logger.warning(
            "The compiled operators are not installed, so slower ones in PyTorch and SciPy are "
            "used; `pip install --no-build-isolation -e .` builds %s",
            path,
        )
        return False
    try:
        info = build_info()
    except OSError as error:
        raise RuntimeError(f"Cannot read {path} ({error.strerror}): {REBUILD}") from error
    if mismatch := built_for_another(info):
        raise RuntimeError(f"Expected {path} to be built {mismatch}: {REBUILD}")
    if info["cuda"] == "none" and torch.cuda.device_count() > 0:
        logger.warning("%s was built without CUDA: on a GPU, slower operators are used", path)
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise RuntimeError(
            f"Cannot load {path} into torch {torch.__version__} ({error}): {REBUILD}"
        ) from error
    return True


def schemas() -> dict[str, tuple[torch.Tag, ...]]:
    """Return the schema and the tags of every operator, as in the compiled library.

    Returns
    -------
    dict
        The tags by schema.
    """
    text = (include_path() / "recyclelora" / "schemas.def").read_text(encoding="utf-8")
    found = re.findall(r'^SCHEMA\("(.*)", (true|false)\)$', text, re.MULTILINE)
    # Older versions of PyTorch do not have this tag.
    unsafe = (torch.Tag.cudagraph_unsafe,) if hasattr(torch.Tag, "cudagraph_unsafe") else ()
    return {schema: () if capturable == "true" else unsafe for schema, capturable in found}


@functools.cache
def load_problem() -> str:
    """Return why an existing compiled library cannot be loaded.

    ``import recyclelora`` succeeds nevertheless, so that ``collect_env`` can report the reason. The
    operators raise an error.

    Returns
    -------
    str
        The reason; empty if the library can be loaded.
    """
    try:
        load()
    except RuntimeError as error:
        return str(error)
    return ""


def reference_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the kernel for devices without a compiled one.

    If a compiled library exists but cannot be loaded, the returned function raises an error, so
    that slower operators are not used unnoticed.

    Parameters
    ----------
    function : Callable
        The reference implementation.

    Returns
    -------
    Callable
        ``function``, or a function that raises the error.
    """
    problem = load_problem()

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(problem)

    return refuse if problem else function


@functools.cache
def define_operators() -> bool:
    """Define ``torch.ops.recyclelora`` by the compiled library or, without it, by the schemas.

    Returns
    -------
    bool
        Whether the compiled library defines the operators.
    """
    if not load_problem() and load():
        return True
    for schema, tags in schemas().items():
        name, arguments = re.fullmatch(r"(\w+)(.*)", schema).groups()
        torch.library.define(f"recyclelora::{name}", arguments, tags=tags)
    return False


def built_for_another(info: dict[str, str]) -> str:
    """Return the mismatch between a library and the running torch.

    The C++ interface of torch changes with each minor version, that of CUDA with each major
    version.

    Parameters
    ----------
    info : dict
        The result of :func:`build_info`.

    Returns
    -------
    str
        A description; empty if there is no mismatch.
    """
    torch_here, cuda_here = torch.__version__.partition("+")[0], torch.version.cuda or "none"
    built, cuda = info.get("torch", "unknown"), info.get("cuda", "none")
    if built.split(".")[:2] != torch_here.split(".")[:2]:
        return f"for torch {torch_here}, but it was built for torch {built}"
    if cuda != "none" and cuda.split(".")[0] != cuda_here.split(".")[0]:
        return f"for torch's CUDA {cuda_here}, but it was built for CUDA {cuda}"
    return ""
