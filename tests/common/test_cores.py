import os

import pytest

from recyclelora.common import cores


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """``cgroup(own, files)``: what /proc/self/cgroup and /sys/fs/cgroup contain; eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_OWN_CGROUPS", tmp_path / "own")

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


def test_available_cores_without_quota_is_the_affinity(cgroup, monkeypatch):
    assert cores.available_cores() == 8  # no cgroups at all
    cgroup("0::/\n")
    assert cores.available_cores() == 8
    cgroup("0::/\n", **{"cpu.max": "max 100000\n"})
    assert cores.available_cores() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert cores.available_cores() == 2


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("150000", 2), ("1000", 1)])
def test_available_cores_regards_the_quota(cgroup, quota, expected):
    cgroup("0::/\n", **{"cpu.max": f"{quota} 100000\n"})
    assert cores.available_cores() == expected


def test_available_cores_regards_the_groups_above(cgroup):
    files = {"cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000"}
    cgroup("0::/a/b\n", **files)
    assert cores.available_cores() == 4
    cgroup("0::/of/the/machine\n", **{"cpu.max": "200000 100000\n"})
    assert cores.available_cores() == 2


def test_available_cores_regards_cgroups_of_version_1(cgroup):
    own = "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n"
    cgroup(own, **{"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"})
    assert cores.available_cores() == 8
    cgroup(own, **{"cpu/job/cpu.cfs_quota_us": "500000\n"})
    assert cores.available_cores() == 5
