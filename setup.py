"""Builds the compiled part of RecycleLoRA; everything else is said in pyproject.toml."""

import sys
import sysconfig
from pathlib import Path

from setuptools import setup

try:
    import torch  # noqa: F401
except ModuleNotFoundError:
    # pip builds in an isolated environment that hides the installed packages. The extension must
    # be compiled against the torch it will run with, never against a second one, so look there.
    sys.path.append(sysconfig.get_path("purelib"))

try:
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ModuleNotFoundError as error:
    raise SystemExit(
        "RecycleLoRA compiles against the torch that is installed, and this Python has none "
        f"({error}): install torch first, then run `pip install --no-build-isolation -e .`"
    ) from error

ROOT = Path(__file__).parent
SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.cpp"))

setup(
    ext_modules=[
        # A library of torch operators, not a Python module: recyclelora.ops.library loads it with
        # torch.ops.load_library, so one build serves every Python (`py_limited_api`).
        CppExtension("recyclelora._C", SOURCES, py_limited_api=True),
    ],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
