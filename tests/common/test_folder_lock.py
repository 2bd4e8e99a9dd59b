"""The lock of a folder has one holder, which its error names, and is always released."""

import os
import subprocess
import sys

import pytest

from recyclelora.common.folder_lock import FolderLockedError, folder_lock

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
HOLD = """
import os, sys, time
from recyclelora.common.folder_lock import folder_lock
with folder_lock(sys.argv[1]):
    if os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def test_inheritable_lock_is_held_until_the_child_ends(tmp_path):
    with folder_lock(tmp_path / "new", inheritable=True) as lock:
        child = subprocess.Popen(SLEEP, pass_fds=[lock])
    try:
        with (
            pytest.raises(FolderLockedError, match=f"process {os.getpid()} on ") as refused,
            folder_lock(tmp_path / "new", inheritable=True),
        ):
            pass
        assert refused.value.holder.startswith("process ")
        assert str(tmp_path / "new") in str(refused.value)
    finally:
        child.kill()
        child.wait()
    with folder_lock(tmp_path / "new", inheritable=True):
        pass


def test_plain_lock_is_not_held_by_a_forked_child(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(FolderLockedError, match=f"process {holder.pid} "),
            folder_lock(tmp_path),
        ):
            pass
        holder.kill()
        holder.wait()
        with folder_lock(tmp_path):  # the forked child is still alive
            assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    finally:
        os.killpg(holder.pid, 9)
        holder.stdout.close()


@pytest.mark.parametrize("inheritable", [True, False])
def test_file_system_without_locks_is_no_error(inheritable, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr("fcntl.lockf", refuse)
    with folder_lock(tmp_path, name="other.lock", inheritable=inheritable):
        assert (tmp_path / "other.lock").is_file()
