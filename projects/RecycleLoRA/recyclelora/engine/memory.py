"""The memory that a computation may use and that it has used, on the CPU or a GPU."""

import contextlib
import ctypes
import gc
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

_CGROUPS = (  # files of limit, usage and statistics, for cgroup versions 2 and 1
    ("/sys/fs/cgroup/memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def available_memory(device: torch.device) -> int:
    """Return the number of bytes that this process can still allocate.

    On the CPU, the number is limited by the machine, by the control group of a container and by the
    limits of the process (``ulimit``).

    Parameters
    ----------
    device : torch.device
        The device.

    Returns
    -------
    int
        The number of bytes.
    """
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    found = [_kilobytes("/proc/meminfo", "MemAvailable")]
    for limit, use in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # "max" means no limit
            folder = Path(limit).parent
            used = int((folder / use).read_text(encoding="utf-8")) - _file_cache(
                folder / "memory.stat"
            )
            found.append(int(Path(limit).read_text(encoding="utf-8")) - used)
    for kind, key in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            found.append(soft - _kilobytes("/proc/self/status", key))
    return max(min(found), 0)


@contextlib.contextmanager
def limited_memory(device: torch.device) -> Iterator[None]:
    """Make allocations beyond the available memory fail inside the ``with`` block.

    Linux promises more memory than it has and kills a process that uses too much. A failed
    allocation raises an error instead. GPUs raise this error anyway, so nothing changes for them.

    Parameters
    ----------
    device : torch.device
        The device.
    """
    if device.type == "cuda":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = _kilobytes("/proc/self/status", "VmData") + available_memory(device)
    if before[1] != resource.RLIM_INFINITY:
        most = min(most, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


class PeakMemory:
    """Peak memory of a block: in total (``peak``) and beyond the use before it (``beyond``).

    On the CPU the resident bytes of this process are measured, on a GPU the bytes of tensors.

    Parameters
    ----------
    device : torch.device
        The device.

    Examples
    --------
    >>> with PeakMemory(torch.device("cpu")) as memory:
    ...     work = torch.ones(10_000_000).double()
    >>> memory.beyond > 60e6 and memory.peak > memory.beyond
    True
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.peak = self.beyond = 0

    def __enter__(self) -> "PeakMemory":
        gc.collect()  # so that no older object is freed inside the block
        if self.device.type == "cuda":
            torch.cuda.init()  # otherwise reading the statistics is an error in a new process
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            with contextlib.suppress(AttributeError):  # not every C library has malloc_trim
                ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system
            with contextlib.suppress(OSError):  # then the peak is that of the whole process
                Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM
            self._before = _kilobytes("/proc/self/status", "VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        else:
            self.peak = _kilobytes("/proc/self/status", "VmHWM")
        self.beyond = max(self.peak - self._before, 0)


def _kilobytes(file: str, key: str) -> int:
    """Return the value in bytes of an entry that the kernel reports in kilobytes."""
    found = re.search(rf"^{key}:\s+(\d+) kB", Path(file).read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) * 1024


def _file_cache(statistics: Path) -> int:
    """Return the bytes of a control group's file cache that the kernel can reclaim."""
    found = re.search(
        r"^(?:total_)?inactive_file (\d+)", statistics.read_text(encoding="utf-8"), re.MULTILINE
    )
    return int(found[1]) if found else 0
