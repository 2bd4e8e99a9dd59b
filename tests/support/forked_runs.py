"""Runs of the training tool in forked processes that start within a tenth of a second."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from .training_runs import ROOT, TINY, TOOL

# Without this, the run would start its data workers from the fork server, which users do not.
MAIN = """
import multiprocessing, os, runpy, resource
multiprocessing.set_start_method("fork", force=True)
log = os.open({printed!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1), os.dup2(log, 2)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
runpy.run_path({tool!r}, run_name="__main__")
"""


class ForkedRuns:
    """Starts the tool in processes forked from one that has imported everything once.

    Parameters
    ----------
    streets : Path
        Value of ``dataloader.streets``.
    options : list of str
        Overrides of every run.
    """

    def __init__(self, streets: Path, options: list[str], monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        self.options = [f"dataloader.streets={streets}", *options]
        self.monkeypatch = monkeypatch
        # A process has one fork server. One that another test started has not imported these
        # modules, so every run would import them.
        forkserver._forkserver._stop()
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["torch", "recyclelora.engine.training"])

    def start(self, output: Path, *options: str, limit: int = -1) -> multiprocessing.Process:
        """Start a run into ``output``, which resumes if there is a checkpoint.

        No file may become larger than ``limit`` bytes; -1 sets no limit.
        """
        config = ["--config-file", str(ROOT / TINY), "--resume"]
        options = (f"train.output_dir={output}", *self.options, *options)
        self.monkeypatch.setattr(sys, "argv", [str(TOOL), *config, *options])
        code = MAIN.format(printed=f"{output}.txt", tool=str(TOOL), limit=limit)
        process = self.context.Process(target=exec, args=(code,))
        process.start()
        return process

    def finish(self, output: Path, *options: str) -> None:
        """Run the tool until it ends."""
        process = self.start(output, *options)
        process.join(600)
        process.kill()  # no effect if it has ended
        process.join()
        assert process.exitcode == 0, printed(output)


def printed(output: Path) -> str:
    """Return the printed output of the runs into ``output``."""
    return Path(f"{output}.txt").read_text()


def wait_for(condition: Callable[[], object], process: multiprocessing.Process) -> None:
    """Wait until ``condition`` is true; fail if the process ends first."""
    while not condition():
        assert process.is_alive()
        time.sleep(0.001)


def children(process: multiprocessing.Process) -> list[int]:
    """Return the process ids of the data workers of a run."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def curve(output: Path) -> list[dict]:
    """Return the lines of ``metrics.json`` without times."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "time" not in k} for line in lines]


def state(output: Path) -> dict:
    """Return the newest checkpoint without times."""
    content = torch.load(max(output.glob("iter_*.pth")), weights_only=True)
    content["history"] = {k: v for k, v in content["history"].items() if "time" not in k}
    return content


def differences(a: object, b: object, where: str = "") -> list[str]:
    """Return where two nested structures of dicts, lists, tensors and values differ in bits."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [found for i, pair in pairs for found in differences(*pair, f"{where}.{i}")]
    tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
    return [] if (torch.equal(a, b) if tensors else a == b) else [where]


def assert_same_run(output: Path, whole: Path) -> None:
    """Assert equal loss curves, bits of state and evaluations, and no temporary files."""
    assert curve(output) == curve(whole)
    assert differences(state(output), state(whole)) == []
    evaluations = [json.loads((run / "domains.json").read_text()) for run in (output, whole)]
    assert evaluations[0] == evaluations[1]
    assert not list(output.rglob(".*.tmp"))
    assert os.path.getsize(output / "log.txt")
