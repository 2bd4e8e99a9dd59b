"""Report the installed versions, the build and missing packages: python -m recyclelora.collect_env

Paste the output into a bug report. The exit status is 1 if a requirement is missing. The packages
that ``import recyclelora`` itself needs (PyTorch, NumPy, SciPy, safetensors, threadpoolctl, tqdm)
must be installed. Otherwise Python raises an error that names the package.
"""

import getpass
import importlib
import importlib.metadata
import json
import os
import platform
import pwd
import re
import shlex
import shutil
import sys
from pathlib import Path

import torch
from torch.utils.collect_env import run, run_and_read_all

from recyclelora.common.command_line import tolerate_any_text
from recyclelora.common.paths import expand_path
from recyclelora.ops import is_interruptible, library

MODULES = (
    *("torchvision", "numpy", "scipy", "cv2", "PIL", "onnx", "safetensors", "omegaconf", "fvcore"),
    *("tensorboard", "matplotlib", "tabulate", "threadpoolctl", "tqdm"),
)
FAST = ("kornia_rs", "simplejpeg")  # optional: the extra "fast"
# Modules whose package has another name.
PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow"}
FOLDERS = {
    "RECYCLELORA_DATA": "real street images, for `make demo` and some tests",
    "RECYCLELORA_GOLDEN": "reference outputs, for tests that compare with published code",
    "DETECTRON2_DATASETS": "GTAV, Cityscapes and others, for training",
}
REBUILD = "`pip install --no-build-isolation -e .` builds it (needs g++)"

# Rows (name, value) and missing requirements (name, remedy).
Report = tuple[list[tuple[str, str]], list[tuple[str, str]]]


def module_version(module: str) -> tuple[str | None, str]:
    """Import a module and return its version.

    Parameters
    ----------
    module : str
        The name of the module.

    Returns
    -------
    version : str or None
        The version, or None if the import fails.
    reason : str
        Why the import fails, or "".
    """
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a broken package can raise any error, but the report must continue
        return None, f"does not import ({type(error).__name__}: {error})"
    return str(getattr(loaded, "__version__", "unknown version")), ""


def python_report() -> Report:
    """Report the interpreter, this package and the packages that it needs.

    Returns
    -------
    Report
        The rows and the missing requirements.
    """
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
    for module in MODULES:
        version, reason = module_version(module)
        rows.append((module, (version or reason).replace("\n", " ")))
        if version is None:
            missing.append((module, f"`pip install {PACKAGES.get(module, module)}`"))
    absent = [module for module in FAST if module_version(module)[0] is None]
    fast = (
        f"no {' and '.join(absent)}: `pip install 'recyclelora[fast]'`" if absent else "installed"
    )
    return [*rows, ("fast decoders of PNG and JPEG", fast)], missing


def detectron2_report() -> Report:
    """Report the version and origin of Detectron2, and whether its operators are compiled.

    Returns
    -------
    Report
        The rows and the missing requirements.
    """
    version, reason = module_version("detectron2")
    if version is None:
        remedy = "`python tools/install_detectron2.py`"
        return [("detectron2", reason)], [("detectron2", remedy)]
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
    """Report the CUDA version of torch, the compilers and the GPUs.

    Returns
    -------
    Report
        The rows and the missing requirements.
    """
    home = os.environ.get("CUDA_HOME")
    nvcc = f"{home}/bin/nvcc" if home else shutil.which("nvcc")
    version = run_and_read_all(run, f"{shlex.quote(nvcc)} --version") if nvcc else None
    release = re.search(r"release ([\d.]+)", version or "")
    compiler = run_and_read_all(run, f"{os.environ.get('CXX', 'c++')} --version") or "none"
    rows = [
        ("CUDA of torch", torch.version.cuda or "none: a CPU build"),
        ("CUDA toolkit", f"{release.group(1)} ({nvcc})" if release else "none (set CUDA_HOME)"),
        ("C++ compiler", compiler.partition("\n")[0]),
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
    """Return whether a GPU can run code that was compiled for some architectures.

    Parameters
    ----------
    architectures : str
        The architectures, such as "8.0 9.0+PTX".
    capability : tuple[int, int]
        The compute capability of the GPU.

    Returns
    -------
    bool
        True if it can.
    """
    for major, minor, ptx in re.findall(r"(\d+)\.(\d+)[af]?(\+PTX)?(?:\s|$)", architectures):
        target = int(major), int(minor)
        if target <= capability and (ptx or target[0] == capability[0]):
            return True
    return False


def extension_report() -> Report:
    """Report the torch, CUDA and GPU versions for which this package's extension was compiled.

    Returns
    -------
    Report
        The rows and the missing requirements.
    """
    path, info = library.library_path(), library.build_info()
    if not path.is_file():
        return [("extension", f"not built: {path} is absent")], [("extension", REBUILD)]
    try:
        library.load()
    except RuntimeError as error:
        return [("extension", str(error))], [("extension", REBUILD)]
    built = f"with {info['compiler']}, C++ {info['cxx']}, for torch {info['torch']}"
    targets = f" for {info['architectures']}" if info["cuda"] != "none" else ""
    ends = (
        "yes"
        if is_interruptible()
        else "no: recyclelora._interruption is not built for this Python"
    )
    rows = [
        ("extension", str(path)),
        ("extension built", f"{built}, CUDA {info['cuda']}{targets}"),
        ("Ctrl-C ends decompositions", ends),
    ]
    missing = []
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        fits = compiled_for(info["architectures"], capability)
        rows.append((f"extension on GPU {index}", "compiled" if fits else "not compiled for it"))
        if not fits:
            missing.append((f"extension on GPU {index}", f"{REBUILD}, and a CUDA toolkit"))
    return rows, missing


def folder_report() -> Report:
    """Report the optional environment variables that name folders.

    Returns
    -------
    Report
        The rows and the missing requirements.
    """
    rows = []
    for variable, purpose in FOLDERS.items():
        value = os.environ.get(variable) or "not set"
        state = ""
        if value != "not set":
            try:
                state = "" if expand_path(value).is_dir() else ", which is not a folder"
            except ValueError as error:
                state = f", where {error}"
        rows.append((variable, f"{value}{state} ({purpose})"))
    return rows, []


def user_report() -> Report:
    """Report the user and the home folder, in which PyTorch and other libraries have caches.

    Returns
    -------
    Report
        The rows and the missing requirements.
    """
    name = getpass.getuser()
    try:
        pwd.getpwuid(os.getuid())
        entry = ""
    except KeyError:
        entry = ", without an entry in the password database"
    home = os.environ.get("HOME")
    if not home:
        state = "HOME is not set (set RECYCLELORA_CACHE to keep pretrained weights)"
    elif not os.access(home, os.W_OK | os.X_OK):
        state = f"{home}, not writable (set RECYCLELORA_CACHE to keep pretrained weights)"
    else:
        state = home
    encoding = f"{sys.stdout.encoding} (terminal), {sys.getfilesystemencoding()} (file names)"
    return [("user", f"{name}{entry}"), ("home folder", state), ("encoding", encoding)], []


PARTS = (
    *(python_report, user_report, detectron2_report, device_report, extension_report),
    folder_report,
)


def main() -> int:
    """Print the report.

    Returns
    -------
    int
        The exit status, 1 if a requirement is missing.
    """
    tolerate_any_text()
    rows, missing = [], []
    for part in PARTS:
        try:
            part_rows, part_missing = part()
        except Exception as error:  # a broken library can raise any error
            name = part.__name__.removesuffix("_report")
            reason = f"{type(error).__name__}: {error}".replace("\n", " ")
            part_rows, part_missing = [(name, reason)], [(name, "fix the cause of this error")]
        rows += part_rows
        missing += part_missing
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
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
