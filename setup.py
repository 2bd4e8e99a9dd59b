"""Builds the compiled part of RecycleLoRA; everything else is said in pyproject.toml.

With CUDA where there is a toolkit and torch is a CUDA build, whether or not the machine has a GPU.
Environment variables: FORCE_CUDA=1 (an error where CUDA cannot be built), RECYCLELORA_NO_CUDA=1
(a build without it), CUDA_HOME (the toolkit), TORCH_CUDA_ARCH_LIST (as "8.0 9.0+PTX"), MAX_JOBS.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    import torch
except ModuleNotFoundError:
    # pip builds in an isolated environment that hides the installed packages. The extension must
    # be compiled against the torch it will run with, never against a second one, so look there.
    sys.path.append(sysconfig.get_path("purelib"))
    try:
        import torch
    except ModuleNotFoundError as error:
        raise SystemExit(
            "RecycleLoRA compiles against the torch that is installed, and this Python has none "
            f"({error}): install torch first, then run `pip install --no-build-isolation -e .`"
        ) from error

ROOT = Path(__file__).parent
INCLUDE = ROOT / "projects" / "RecycleLoRA" / "recyclelora" / "include"
PACKAGES = Path(torch.__file__).parents[1]  # where pip puts torch, and the CUDA that torch brings
WITHOUT_GPU = "8.0 9.0+PTX"  # Ampere, Ada and Hopper; newer GPUs compile the PTX at first use


def is_set(variable: str) -> bool:
    """Whether an environment variable says yes."""
    return os.environ.get(variable, "") not in {"", "0"}


def toolkit_version(home: Path) -> str | None:
    """As "13.0"; None where `home` holds no whole CUDA toolkit."""
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
    """The CUDA toolkits of this machine and their versions, the likeliest first.

    torch takes the folder above the `nvcc` on PATH unseen, and that may be a script that calls the
    toolkit's own from elsewhere: here a folder counts if the headers are there too.
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
            f"error: Expected a CUDA toolkit in CUDA_HOME={named}, but bin/nvcc and "
            "include/cuda_runtime.h are not both there: correct it, or set RECYCLELORA_NO_CUDA=1"
        )
    return {home: version for home, version in versions.items() if version}


def find_cuda() -> tuple[Path | None, str]:
    """The toolkit to build with and its version, or None and why CUDA is not built."""
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
                f"error: Expected a CUDA {major} toolkit, as torch {torch.__version__} is built "
                f"with CUDA {torch.version.cuda}, but found {listed}: name another in CUDA_HOME, "
                "or set RECYCLELORA_NO_CUDA=1 to build without CUDA"
            )
        reason = "no CUDA toolkit was found (CUDA_HOME may name one)"
    if is_set("FORCE_CUDA"):
        raise SystemExit(f"error: FORCE_CUDA is set, but {reason}")
    return None, reason


def architectures() -> str:
    """What to compile for: TORCH_CUDA_ARCH_LIST, else the GPUs that are here, else a short list."""
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if named and named != ["native"]:
        return " ".join(named)
    here = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return " ".join(f"{a}.{b}" for a, b in sorted(here)) + "+PTX" if here else WITHOUT_GPU


def cuda_headers_of_torch(home: Path) -> list[str]:
    """Folders of what torch's headers include and a small toolkit lacks (cusparse.h and others)."""
    needed = ("cublas_v2.h", "cusolverDn.h", "cusparse.h")
    lacking = [name for name in needed if not (home / "include" / name).is_file()]
    found = {path.parent for name in lacking for path in PACKAGES.glob(f"nvidia/*/include/{name}")}
    return sorted(map(str, found))


def run_path() -> list[str]:
    """Where the library finds torch and CUDA's runtime: beside itself, or where they are now."""
    runtime = {path.parent for path in PACKAGES.glob("nvidia/*/lib/libcudart.so*")}
    folders = ["torch/lib", *sorted(str(path.relative_to(PACKAGES)) for path in runtime)]
    return [f"{root}/{folder}" for root in ("$ORIGIN/..", PACKAGES) for folder in folders]


class BuildWithConfigs(build_py):
    """Adds configs/ to a wheel as recyclelora/configs, where recyclelora.config looks for it."""

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
    """Say what is built, then build it: all of csrc/, but csrc/cuda only where CUDA is."""
    home, version = find_cuda()
    if home:
        targets = architectures()
        print(f"recyclelora: building with CUDA {version} of {home}, for {targets}", flush=True)
        # Before the next import, which reads it.
        os.environ |= {"CUDA_HOME": str(home), "TORCH_CUDA_ARCH_LIST": targets}
    else:
        print(f"recyclelora: building without CUDA: {version}", flush=True)
        version = targets = "none"
    from torch.utils import cpp_extension

    kind = cpp_extension.CUDAExtension if home else cpp_extension.CppExtension
    sources = [path.relative_to(ROOT) for path in (ROOT / "csrc").rglob("*.*")]
    if not home:
        sources = [path for path in sources if "cuda" not in path.parts]
    host = ["-fopenmp", "-fvisibility=hidden"]  # at::parallel_for is serial without the first
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
        # A library of torch operators, not a Python module: recyclelora.ops.library loads it with
        # torch.ops.load_library, so one build serves every Python (`py_limited_api`).
        py_limited_api=True,
    )
    if home:  # last, so that the toolkit's own headers come first
        library.include_dirs += cuda_headers_of_torch(home)
    setup(
        ext_modules=[library],
        cmdclass={"build_ext": cpp_extension.BuildExtension, "build_py": BuildWithConfigs},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )


if __name__ == "__main__":
    main()
