"""What a result ran on: the machine, versions, how the extension was built, the commit."""

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

ROOT = Path(__file__).resolve().parents[4]


def environment(device: torch.device) -> dict[str, Any]:
    """The machine, the versions, how the extension was built, and the commit."""
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    key = "CUDA" if device.type == "cuda" else "CPU"
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    cpu = names[0] if names else platform.machine()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "machine": gpu or f"{_several(cores, 'CPU core')} ({cpu}), {_several(threads, 'thread')}",
        "gpu": gpu,
        "cpu": cpu,
        "cores": cores,
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "scipy", "peft", "transformers")},
        "recyclelora": _version("recyclelora"),
        "extension": library.build_info(),
        "rrqr": "compiled" if has_kernel("recyclelora::rrqr", key) else "SciPy reference",
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _version(package: str) -> str | None:
    if package == "torch":
        return torch.__version__  # says which build, too
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return result.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = git(
        "status", "--porcelain", "-uno", "--", "csrc", "projects", "tools", "benchmark", "configs"
    )
    return f"{commit} with local changes" if changed else commit
