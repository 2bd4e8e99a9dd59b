"""The first signal requests a stop, a duplicate is ignored, a later one kills."""

import os
import signal
import subprocess
import sys

import pytest

from recyclelora.engine.launch import resume_command
from recyclelora.engine.stopping import SIGNALS, Stopped, StopRequest

TWICE = """
import os, signal, sys, time
from recyclelora.engine.stopping import StopRequest
with StopRequest() as request:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    print("asked", request.received, flush=True)
    time.sleep(1.1)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here")
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_sets_request(number, capfd):
    before = signal.getsignal(number)
    with StopRequest() as request:
        request.check()
        os.kill(os.getpid(), number)
        assert request.received
        with pytest.raises(Stopped):
            request.check()
        with pytest.raises(Stopped):
            request.check_all()
    assert signal.getsignal(number) is before
    assert (
        f"{number.name}: stopping soon; send it again to stop immediately" in capfd.readouterr().err
    )


def test_duplicate_signal_ignored_second_kills():
    done = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "asked True\n"


def test_resume_command_of_each_launcher(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    tool = ["tools/lazyconfig_train_net.py", "--config-file", "my configs/a.py", "train.seed=1"]
    monkeypatch.setattr(sys, "argv", tool)
    monkeypatch.setattr(sys, "executable", "python")
    once = resume_command()
    assert once == (
        "python tools/lazyconfig_train_net.py --resume --config-file 'my configs/a.py' train.seed=1"
    )
    monkeypatch.setattr(sys, "argv", [tool[0], "--resume", *tool[1:]])
    assert resume_command() == once
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    start = "python -m torch.distributed.run --nproc-per-node=2"
    assert resume_command().startswith(f"{start} --standalone tools/lazyconfig_train_net.py")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert resume_command().startswith(f"{start} ... tools/lazyconfig_train_net.py")
