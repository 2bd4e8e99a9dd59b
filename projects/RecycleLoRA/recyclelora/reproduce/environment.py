"""Describe the environment of a result: machine, versions, extension build and commit."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from recyclelora.ops import library

from .checkout import find_checkout

_SOURCES = ("csrc", "projects", "tools", "benchmark", "configs")


def environment(device: torch.device, root: Path | None = None) -> dict[str, Any]:
    """Return the machine, the versions, the build of the extension, and the commit of ``root``.

    Parameters
    ----------
    device : torch.device
        The device on which the result was computed.
    root : Path, optional
        The checkout, by default that of the working directory.

    Returns
    -------
    dict[str, Any]
        Plain values for JSON.
    """
    names = re.findall(
        r"^model name\s*: (.*)$",
        Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"),
        re.MULTILINE,
    )
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    key = "CUDA" if device.type == "cuda" else "CPU"
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    cpu = names[0] if names else platform.machine()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "machine": gpu or f"{_plural(cores, 'CPU core')} ({cpu}), {_plural(threads, 'thread')}",
        "gpu": gpu,
        "cpu": cpu,
        "cores": cores,
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "scipy", "peft", "transformers")},
        "recyclelora": _version("recyclelora"),
        "extension": library.build_info(),
        "rrqr": "compiled" if has_kernel("recyclelora::rrqr", key) else "SciPy reference",
        "commit": _commit(root or find_checkout()),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _version(package: str) -> str | None:
    if package == "torch":
        return torch.__version__  # includes the build, such as +cu130
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(root: Path) -> str:
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        result = subprocess.run(
            command, cwd=root, capture_output=True, text=True, errors="replace", check=False
        )
        return result.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "-uno", "--", *_SOURCES)
    return f"{commit} with local changes" if changed else commit
