"""The lock of an output folder: a second training raises, and a killed one releases it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recyclelora.engine.output import lock_output

HOLD = """
import os, signal, sys, time
from recyclelora.engine.output import lock_output
with lock_output(sys.argv[1]):
    if os.fork() == 0:  # as a data worker, which may outlive a killed run for a while
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Start another training that holds ``tmp_path / "run"``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()


def test_lock_output_held_by_other_process_raises(other, tmp_path):
    said = f"another training writes to {tmp_path / 'run'} .process {other.pid} on .*: wait for it"
    for _ in range(2):
        with pytest.raises(ValueError, match=said), lock_output(tmp_path / "run"):
            pytest.fail("it was let in")
    other.kill()
    other.wait()
    with lock_output(tmp_path / "run"):  # although its worker is still alive
        assert Path(tmp_path, "run", "training.lock").read_text().count("\n") == 1
    with lock_output(tmp_path / "run"):
        pass


def test_lock_output_without_file_locks_succeeds(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with lock_output(tmp_path):
        pass


def test_lock_output_unwritable_folder_raises(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="must be a folder to write to"),
        lock_output(tmp_path / "file"),
    ):
        pass
