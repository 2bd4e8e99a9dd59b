"""Build the compiled part of RecycleLoRA; pyproject.toml has all other settings.

CUDA code is compiled if there is a toolkit and torch is a CUDA build, even without a GPU.
Environment variables: FORCE_CUDA=1 (raise an error if CUDA code cannot be built),
RECYCLELORA_NO_CUDA=1 (build without CUDA), CUDA_HOME (the toolkit), TORCH_CUDA_ARCH_LIST (such as
"8.0 9.0+PTX"), MAX_JOBS.

`recyclelora._interruption` (progress and Ctrl-C in long decompositions) is a Python module for the
Python that builds it, if that Python has pybind11. The library of operators does not need it.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

try:
    import torch
except ModuleNotFoundError:
    # pip builds in an isolated environment that hides the installed packages. The extension must
    # be compiled against the torch with which it will run, so import that one.
    sys.path.append(sysconfig.get_path("purelib"))
    try:
        import torch
    except ModuleNotFoundError as error:
        raise SystemExit(
            "RecycleLoRA is compiled against the installed torch, but this Python has none "
            f"({error}): install torch first, then run `pip install --no-build-isolation -e .`"
        ) from error

ROOT = Path(__file__).parent
INCLUDE = ROOT / "projects" / "RecycleLoRA" / "recyclelora" / "include"
PACKAGES = Path(torch.__file__).parents[1]  # the folder of torch and of its CUDA packages
WITHOUT_GPU = "8.0 9.0+PTX"  # Ampere, Ada and Hopper; newer GPUs compile the PTX at first use


def is_set(variable: str) -> bool:
    """Return whether an environment variable is set to a true value."""
    return os.environ.get(variable, "") not in {"", "0"}


def toolkit_version(home: Path) -> str | None:
    """Return a version such as "13.0", or None if `home` has no complete CUDA toolkit."""
    headers = ("include", "targets/x86_64-linux/include")  # the second is conda's
    if not any((home / folder / "cuda_runtime.h").is_file() for folder in headers):
        return None
    try:
        text = subprocess.check_output([home / "bin" / "nvcc", "--version"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    release = re.search(r"release (\d+\.\d+)", text)
    return release and release.group(1)


def toolkits() -> dict[Path, str]:
    """Return the CUDA toolkits of this machine and their versions, the most likely first.

    torch uses the folder above the `nvcc` on PATH without a check, but this `nvcc` may be a script
    that calls the one of a toolkit in another folder. This function also requires the headers.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if named:
        homes = [Path(named)]
    else:
        nvcc = shutil.which("nvcc")
        homes = [Path(nvcc).resolve().parents[1]] if nvcc else []
        homes += [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    versions = {home: toolkit_version(home) for home in homes}
    if named and not versions[homes[0]]:
        raise SystemExit(
            f"error: Expected a CUDA toolkit in CUDA_HOME={named}, but bin/nvcc or "
            "include/cuda_runtime.h is missing: correct it, or set RECYCLELORA_NO_CUDA=1"
        )
    return {home: version for home, version in versions.items() if version}


def find_cuda() -> tuple[Path | None, str]:
    """Return the toolkit and its version, or None and the reason for a build without CUDA."""
    if is_set("RECYCLELORA_NO_CUDA"):
        if is_set("FORCE_CUDA"):
            raise SystemExit("error: FORCE_CUDA and RECYCLELORA_NO_CUDA are both set: unset one")
        return None, "RECYCLELORA_NO_CUDA is set"
    reason = f"torch {torch.__version__} is a build without CUDA"
    if torch.version.cuda:
        found = toolkits()
        major = torch.version.cuda.partition(".")[0]
        for home, version in found.items():
            if version.partition(".")[0] == major:
                return home, version
        if found:
            listed = ", ".join(f"{version} in {home}" for home, version in found.items())
            raise SystemExit(
                f"error: Expected a CUDA {major} toolkit, because torch {torch.__version__} is "
                f"built with CUDA {torch.version.cuda}, but found {listed}: set CUDA_HOME to "
                "another one, or set RECYCLELORA_NO_CUDA=1 to build without CUDA"
            )
        reason = "no CUDA toolkit was found (set CUDA_HOME to use one)"
    if is_set("FORCE_CUDA"):
        raise SystemExit(f"error: FORCE_CUDA is set, but {reason}")
    return None, reason


def architectures() -> str:
    """Return TORCH_CUDA_ARCH_LIST if set, or the architectures of the GPUs, or a short list."""
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if named and named != ["native"]:
        return " ".join(named)
    here = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return " ".join(f"{a}.{b}" for a, b in sorted(here)) + "+PTX" if here else WITHOUT_GPU


def cuda_headers_of_torch(home: Path) -> list[str]:
    """Return the folders of headers that torch includes and a small toolkit lacks."""
    needed = ("cublas_v2.h", "cusolverDn.h", "cusparse.h")
    lacking = [name for name in needed if not (home / "include" / name).is_file()]
    found = {path.parent for name in lacking for path in PACKAGES.glob(f"nvidia/*/include/{name}")}
    return sorted(map(str, found))


def run_path() -> list[str]:
    """Return the folders in which the library searches for torch and the CUDA runtime."""
    runtime = {path.parent for path in PACKAGES.glob("nvidia/*/lib/libcudart.so*")}
    folders = ["torch/lib", *sorted(str(path.relative_to(PACKAGES)) for path in runtime)]
    return [f"{root}/{folder}" for root in ("$ORIGIN/..", PACKAGES) for folder in folders]


def interruption() -> list[Extension]:
    """Return the optional Python module, or an empty list where it cannot be built."""
    try:
        import pybind11
    except ModuleNotFoundError:
        missing = "pybind11 is not installed"
    else:
        header = Path(sysconfig.get_path("include"), "Python.h")
        missing = "" if header.is_file() else f"{header} does not exist"
    if missing:
        print(f"recyclelora: long decompositions will not stop on Ctrl-C: {missing}", flush=True)
        return []
    return [
        Extension(
            "recyclelora._interruption",
            ["csrc/python/interruption.cpp"],
            include_dirs=[pybind11.get_include()],
            extra_compile_args=["-O2", "-g0", "-std=c++17", "-fvisibility=hidden"],
            language="c++",
        )
    ]


class BuildWithConfigs(build_py):
    """Add configs/ to a wheel as recyclelora/configs, which recyclelora.config reads."""

    def run(self) -> None:
        """Build the packages, then copy the configs."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(
                ROOT / "configs",
                Path(self.build_lib, "recyclelora", "configs"),
                ignore=shutil.ignore_patterns("__pycache__"),
                dirs_exist_ok=True,
            )


def main() -> None:
    """Print the kind of build, then build csrc/, with csrc/cuda only if CUDA is available."""
    home, version = find_cuda()
    if home:
        targets = architectures()
        print(f"recyclelora: building with CUDA {version} of {home}, for {targets}", flush=True)
        # The next import reads this variable.
        os.environ |= {"CUDA_HOME": str(home), "TORCH_CUDA_ARCH_LIST": targets}
    else:
        print(f"recyclelora: building without CUDA: {version}", flush=True)
        version = targets = "none"
    from torch.utils import cpp_extension

    kind = cpp_extension.CUDAExtension if home else cpp_extension.CppExtension
    sources = [path.relative_to(ROOT) for path in (ROOT / "csrc").rglob("*.*")]
    left_out = {"python"} if home else {"python", "cuda"}
    sources = [path for path in sources if left_out.isdisjoint(path.parts)]
    host = ["-fopenmp", "-fvisibility=hidden"]  # at::parallel_for is serial without OpenMP
    library = kind(
        "recyclelora._C",
        sorted(str(path) for path in sources if path.suffix in {".cpp", ".cu"}),
        include_dirs=[str(INCLUDE)],
        define_macros=[
            ("RECYCLELORA_CUDA", f'"{version}"'),
            ("RECYCLELORA_ARCHITECTURES", f'"{targets}"'),
        ],
        extra_compile_args={
            "cxx": ["-O3", "-g0", *host],
            "nvcc": ["-O3", *(f"-Xcompiler={flag}" for flag in host)],
        },
        extra_link_args=["-fopenmp", *(f"-Wl,-rpath,{folder}" for folder in run_path())],
        # This is a library of torch operators, not a Python module. recyclelora.ops.library loads
        # it with torch.ops.load_library, so one build works for every Python (`py_limited_api`).
        py_limited_api=True,
    )
    if home:  # last, because the headers of the toolkit have precedence
        library.include_dirs += cuda_headers_of_torch(home)
    setup(
        ext_modules=[library, *interruption()],
        cmdclass={"build_ext": cpp_extension.BuildExtension, "build_py": BuildWithConfigs},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )


if __name__ == "__main__":
    main()
