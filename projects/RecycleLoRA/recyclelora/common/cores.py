"""The number of CPU cores that this process may use."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Return the number of CPU cores that this process may use.

    The affinity (``taskset``, a cpuset, Slurm) and the CPU quota of the process's cgroups (``docker
    --cpus``, Kubernetes) can make it smaller than the number of cores of the machine. A quota of
    1.5 cores counts as 2.

    Returns
    -------
    int
        The number of cores, at least 1.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *_quotas()]))


def _quotas() -> Iterator[int]:
    """Yield the quotas, in cores, of this process's cgroups and of their parents."""
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":  # version 2
                yield from _quotas_above(CGROUPS, path, _quota_2)
            elif "cpu" in controllers.split(","):
                yield from _quotas_above(CGROUPS / "cpu", path, _quota_1)


def _quotas_above(root: Path, path: str, quota: Callable[[Path], float]) -> Iterator[int]:
    # In a container, the path can be that of the host, which does not exist here. The root exists.
    folder = root / path.strip("/")
    for place in [folder, *folder.parents]:
        with suppress(OSError, ValueError):
            yield math.ceil(quota(place))
        if place == root:
            return


def _quota_2(folder: Path) -> float:
    quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    return int(quota) / int(period)  # "max" raises a ValueError


def _quota_1(folder: Path) -> float:
    quota, period = (
        int((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8"))
        for name in ("quota", "period")
    )
    if quota <= 0:
        raise ValueError("no quota")
    return quota / period
