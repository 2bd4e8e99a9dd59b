"""``python -m recyclelora.collect_env``: what is installed, how it was built, what is missing.

Paste its output into a bug report. The exit status is 1 where something needed is missing. Without
what ``import recyclelora`` itself needs (PyTorch, NumPy, SciPy, threadpoolctl, tqdm) it does not
start, and Python names the package.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from recyclelora.ops import library

PACKAGES = {  # module -> what pip calls it
    "torchvision": "torchvision",
    "numpy": "numpy",
    "scipy": "scipy",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "onnx": "onnx",
    "safetensors": "safetensors",
    "omegaconf": "omegaconf",
    "fvcore": "fvcore",
    "tensorboard": "tensorboard",
    "matplotlib": "matplotlib",
    "tabulate": "tabulate",
    "threadpoolctl": "threadpoolctl",
    "tqdm": "tqdm",
}
FOLDERS = {
    "RECYCLELORA_DATA": "real street images, for `make demo` and some tests",
    "RECYCLELORA_GOLDEN": "reference outputs, for tests that compare with published code",
    "DETECTRON2_DATASETS": "GTAV, Cityscapes and others, for training",
}
REBUILD = "`pip install --no-build-isolation -e .` builds it (needs g++)"

# What one part reports: rows of (name, value), and what is missing as (name, what to do).
Report = tuple[list[tuple[str, str]], list[tuple[str, str]]]


def version_of(module: str) -> tuple[str | None, str]:
    """(version, "") of a module that imports, (None, reason) of one that does not."""
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a broken package may raise anything; the report must go on
        return None, f"{type(error).__name__}: {error}"
    return str(getattr(loaded, "__version__", "unknown version")), ""


def output_of(*command: str) -> str:
    """What a program prints, empty where there is none or it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def python_report() -> Report:
    """The interpreter, this package and the ordinary packages."""
    try:
        version = importlib.metadata.version("recyclelora")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed, found on PYTHONPATH"
    rows = [
        ("recyclelora", f"{version} ({Path(__file__).parent})"),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", f"{platform.platform()}, {os.cpu_count()} CPU cores"),
        ("torch", torch.__version__),
    ]
    missing = []
    for module, package in PACKAGES.items():
        version, reason = version_of(module)
        rows.append((module, version or f"does not import ({reason})"))
        if version is None:
            missing.append((module, f"`pip install {package}`"))
    return rows, missing


def detectron2_report() -> Report:
    """detectron2: its version, where it came from, whether its compiled operators are there."""
    version, reason = version_of("detectron2")
    if version is None:
        row = ("detectron2", f"does not import ({reason})")
        return [row], [("detectron2", "`python tools/install_detectron2.py`")]
    folder = Path(sys.modules["detectron2"].__file__).parent
    pure = (folder / "_C.py").is_file()
    operators = "pure Python (its compiled operators are not needed)" if pure else "compiled"
    rows = [("detectron2", f"{version}, {operators}"), ("detectron2 is in", str(folder))]
    try:
        source = importlib.metadata.distribution("detectron2").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        source = None
    if source and "vcs_info" in (source := json.loads(source)):
        commit = source["vcs_info"]["commit_id"]
        rows.append(("detectron2 is from", f"{source['url']} at {commit}"))
    return rows, []


def device_report() -> Report:
    """The CUDA that torch was built for, the compilers, and the devices."""
    home = os.environ.get("CUDA_HOME")
    nvcc = f"{home}/bin/nvcc" if home else shutil.which("nvcc")
    release = re.search(r"release ([\d.]+)", output_of(nvcc, "--version")) if nvcc else None
    compiler = output_of(os.environ.get("CXX", "c++"), "--version").partition("\n")[0]
    rows = [
        ("CUDA of torch", torch.version.cuda or "none: a CPU build"),
        ("CUDA toolkit", f"{release.group(1)} ({nvcc})" if release else "none (set CUDA_HOME)"),
        ("C++ compiler", compiler or "none"),
    ]
    if not torch.cuda.is_available():
        rows.append(("GPU", "none that torch can use: everything runs on the CPU"))
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.0f} GiB"
        capability = f"compute capability {device.major}.{device.minor}"
        rows.append((f"GPU {index}", f"{device.name}, {capability}, {memory}"))
    return rows, []


def compiled_for(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether a GPU runs code that was compiled for ``architectures``, as in "8.0 9.0+PTX"."""
    for major, minor, ptx in re.findall(r"(\d+)\.(\d+)[af]?(\+PTX)?(?:\s|$)", architectures):
        target = int(major), int(minor)
        if target <= capability and (ptx or target[0] == capability[0]):
            return True
    return False


def extension_report() -> Report:
    """The compiled library of this package: how it was built, for which torch, CUDA and GPUs."""
    path, info = library.library_path(), library.build_info()
    if not path.is_file():
        return [("extension", f"not built: {path} is absent")], [("extension", REBUILD)]
    try:
        library.load()
    except RuntimeError as error:
        return [("extension", str(error))], [("extension", REBUILD)]
    built = f"with {info['compiler']}, C++ {info['cxx']}, for torch {info['torch']}"
    targets = f" for {info['architectures']}" if info["cuda"] != "none" else ""
    rows = [("extension", str(path)), ("extension built", f"{built}, CUDA {info['cuda']}{targets}")]
    missing = []
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        fits = compiled_for(info["architectures"], capability)
        rows.append((f"extension on GPU {index}", "compiled" if fits else "not compiled for it"))
        if not fits:
            missing.append((f"extension on GPU {index}", f"{REBUILD}, and a CUDA toolkit"))
    return rows, missing


def folder_report() -> Report:
    """The environment variables that name folders; none of them is needed."""
    rows = []
    for variable, purpose in FOLDERS.items():
        value = os.environ.get(variable)
        if not value:
            rows.append((variable, f"not set ({purpose})"))
        else:
            state = "" if Path(value).is_dir() else ", which is not a folder"
            rows.append((variable, f"{value}{state} ({purpose})"))
    return rows, []


def main() -> int:
    """Print the report; returns the exit status."""
    rows, missing = [], []
    for part in (python_report, detectron2_report, device_report, extension_report, folder_report):
        found, lacking = part()
        rows += found
        missing += lacking
    width = max(len(key) for key, _ in rows) + 2
    for key, value in rows:
        print(f"{key:<{width}}{value}")
    print()
    for key, remedy in missing:
        print(f"missing: {key}: {remedy}")
    if not missing:
        print("nothing is missing")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
