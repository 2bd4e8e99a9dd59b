"""Runs of two gloo processes, on one machine or two, equal runs of one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ..support.model_kinds import KINDS
from ..support.model_kinds import STEPS as KIND_STEPS
from ..support.training_runs import ROOT, TINY, TOOL, write_blocks

pytestmark = pytest.mark.slow
STEPS = 20
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(TOOL))
LAUNCHER = ("-m", "tests.support.gloo_launcher", "--num-gpus=2")
# Biases whose gradient is zero up to rounding, which AdamW scales to full steps: those of
# attention keys, and those before a GroupNorm of one channel a group.
NOISE = ("in_proj_bias", "qkv.bias", *(f"input_proj.{level}.0.bias" for level in range(3)))


@pytest.fixture
def port() -> Iterator[int]:
    """Bind a port, so that no other program gets it; the runs may listen on it."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def two_nodes(port: int) -> list[tuple[str, ...]]:
    """Return torchrun commands for two machines with one process each."""
    meet = ("--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
    return [
        ("-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}", *meet, str(TOOL))
        for rank in range(2)
    ]


def two_machines(port: int) -> list[tuple[str, ...]]:
    """Return the commands of Detectron2's launcher for the same processes."""
    url = f"--dist-url=tcp://127.0.0.1:{port}"
    return [
        (*LAUNCHER[:-1], "--num-gpus=1", "--num-machines=2", f"--machine-rank={rank}", url)
        for rank in range(2)
    ]


class Runs:
    """Start runs of the tiny config on the same streets."""

    def __init__(self, streets: Path):
        self.streets = streets

    def start(self, output: Path, *options: str, how=(str(TOOL),)) -> subprocess.Popen:
        """Start a command of a run that resumes if ``output`` contains a checkpoint."""
        command = [sys.executable, *how, "--config-file", str(TINY), "--resume"]
        settings = {
            "train.output_dir": output,
            "dataloader.streets": self.streets,
            "train.max_iter": STEPS,
            "train.picture_period": 0,
            "train.checkpoint_period": 0,
            "train.ema": 0.9,
        }
        return subprocess.Popen(
            [*command, *(f"{key}={value}" for key, value in settings.items()), *options],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def whole(self, output: Path, *options: str, how: list) -> str:
        """Run to the end, with one command per machine, and return the printed text."""
        return ends([self.start(output, *options, how=one) for one in how])


def ends(processes: list[subprocess.Popen], status: int = 0) -> str:
    """Wait for all processes and return the printed text."""
    printed = "\n".join(process.communicate(timeout=600)[0] for process in processes)
    assert [process.returncode for process in processes] == [status] * len(processes), printed
    return printed


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)


def logged(output: Path) -> bool:
    metrics = output / "metrics.json"
    return metrics.exists() and bool(metrics.read_text())


def workers(process: subprocess.Popen) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def weights(output: Path, steps: int = STEPS) -> dict:
    return torch.load(output / f"iter_{steps:07d}.pth", weights_only=True)["model"]


def evaluation(output: Path) -> dict:
    return json.loads((output / "domains.json").read_text())


def losses(output: Path) -> list[float]:
    lines = (output / "metrics.json").read_text().splitlines()
    return [json.loads(line)["total_loss"] for line in lines]


def assert_same(output: Path, other: Path) -> None:
    """Assert that two runs are equal bit for bit."""
    mine = weights(output)
    for name, value in weights(other).items():
        assert torch.equal(mine[name], value), name
    assert evaluation(output) == evaluation(other)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    write_blocks(root / "day", 5)  # not a multiple of two
    write_blocks(root / "night", 4)
    return Runs(root)


@pytest.fixture(scope="module")
def two(runs, tmp_path_factory):
    """Return a run of two processes that was not interrupted."""
    output = tmp_path_factory.mktemp("run") / "two"
    runs.whole(output, how=[TORCHRUN])
    return output


def test_two_processes_match_one(runs, two, tmp_path):
    runs.whole(tmp_path, how=[(str(TOOL),)])
    mine, theirs = weights(two), weights(tmp_path)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        if not name.endswith(NOISE):
            torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-5, msg=name)
    assert [d["images"] for d in evaluation(two)["domains"].values()] == [5, 2]
    means = [evaluation(run)["mean_mIoU"] for run in (two, tmp_path)]
    np.testing.assert_allclose(*means, atol=0.5)


def test_two_processes_match_one_for_every_model(runs, tmp_path):
    script = str(ROOT / "tests" / "support" / "model_kinds.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, how in (("one", [script]), ("two", [*TORCHRUN[:-1], script])):
        command = [sys.executable, *how, str(tmp_path / name), str(runs.streets)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for kind in KINDS:
        one, two = losses(tmp_path / "one" / kind), losses(tmp_path / "two" / kind)
        assert len(one) == KIND_STEPS
        # In each process, the parts of a batch differ, and each has its own normaliser.
        tolerance = 0.01 if kind == "accumulated" else 1e-5
        np.testing.assert_allclose(two, one, rtol=tolerance, err_msg=kind)
    recomputed, kept = (
        weights(tmp_path / "two" / k, KIND_STEPS) for k in ("recomputed", "adapters")
    )
    assert all(torch.equal(value, kept[name]) for name, value in recomputed.items())


@pytest.mark.parametrize("to", ["launcher", "one of two"])
def test_two_processes_stopped_resume_exactly(runs, two, tmp_path, to):
    process = runs.start(tmp_path, how=TORCHRUN)
    wait_for(lambda: logged(tmp_path), process)
    assert len(workers(process)) == 2
    os.kill(process.pid if to == "launcher" else workers(process)[1], signal.SIGTERM)
    printed = process.communicate(timeout=600)[0]
    (saved,) = tmp_path.glob("iter_*.pth")
    assert 0 < torch.load(saved, weights_only=True)["iteration"] < STEPS
    assert "-m torch.distributed.run --nproc-per-node=2 --standalone" in printed
    assert printed.count("To continue: ") == 1
    runs.whole(tmp_path, how=[TORCHRUN])
    assert_same(tmp_path, two)


def test_two_torchrun_machines_stopped_resume_exactly(runs, two, tmp_path, port):
    processes = [runs.start(tmp_path, how=one) for one in two_nodes(port)]
    wait_for(lambda: logged(tmp_path), processes[1])
    os.kill(workers(processes[1])[0], signal.SIGTERM)  # one of the machines is shut down
    printed = ends(processes)
    assert printed.count("To continue: ") == 1
    (saved,) = tmp_path.glob("iter_*.pth")
    assert 0 < torch.load(saved, weights_only=True)["iteration"] < STEPS
    runs.whole(tmp_path, how=two_nodes(port))
    assert_same(tmp_path, two)


def test_detectron2_launcher_stopped_resumes_exactly(runs, two, tmp_path, port):
    process = runs.start(tmp_path, how=LAUNCHER)
    wait_for(lambda: logged(tmp_path), process)
    process.send_signal(signal.SIGTERM)  # it forwards the signal to its processes
    printed = ends([process])
    assert printed.count("To continue: ") == 1 and "Traceback" not in printed
    assert "--num-gpus=2" in printed.partition("To continue: ")[2]
    (saved,) = tmp_path.glob("iter_*.pth")
    assert 0 < torch.load(saved, weights_only=True)["iteration"] < STEPS
    runs.whole(tmp_path, how=two_machines(port))
    assert_same(tmp_path, two)


def test_interrupted_evaluation_is_repeated(runs, two, tmp_path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    (tmp_path / "domains.json").unlink()
    process = runs.start(tmp_path, "evaluation.protocol.long_side=1024", how=TORCHRUN)
    log = tmp_path / "log.txt"
    wait_for(lambda: log.read_text().count("Evaluating the averaged weights") == 2, process)
    os.kill(process.pid, signal.SIGTERM)
    printed = process.communicate(timeout=600)[0]
    assert printed.count("To continue: ") == 1
    assert not (tmp_path / "domains.json").exists()
    runs.whole(tmp_path, how=[TORCHRUN])
    assert_same(tmp_path, two)


def test_machines_without_shared_folder_raise(runs, two, tmp_path, port):
    shutil.copytree(two, tmp_path / "first")
    processes = [
        runs.start(tmp_path / name, f"train.max_iter={STEPS + 1}", how=one)
        for name, one in zip(("first", "second"), two_nodes(port), strict=True)
    ]
    printed = ends(processes, status=1)
    assert "on a file system that all machines share" in printed
    assert not list((tmp_path / "second").glob("iter_*.pth"))


def test_locked_output_folder_raises(runs, tmp_path):
    first = runs.start(tmp_path, "train.max_iter=100000")
    wait_for(lambda: logged(tmp_path), first)
    try:
        printed = ends([runs.start(tmp_path)], status=1)
        assert f"error: another training writes to {tmp_path} (process {first.pid} on " in printed
    finally:
        first.send_signal(signal.SIGTERM)
    ends([first])


def test_bad_batch_ends_both_processes(runs, tmp_path):
    diverging = ("optimizer.lr=1", "optimizer.weight_decay=1000")
    printed = ends([runs.start(tmp_path, *diverging, how=TORCHRUN)], status=1)
    assert printed.count("error: ") == 1 and "is saved in" in printed  # by only one process
    (batch,) = tmp_path.glob("bad_batch_*.pth")
    content = torch.load(batch, weights_only=True)
    assert len(content["samples"]) == 2
    last = max(tmp_path.glob("iter_*.pth"))
    assert torch.load(last, weights_only=True)["iteration"] == content["iteration"] > 0


def test_failure_of_one_process_prints_one_error(runs, tmp_path):
    broken = tmp_path / "streets"
    shutil.copytree(runs.streets, broken)
    # The second process reads this image.
    (broken / "day" / "images" / "001.png").write_bytes(b"no picture")
    options = (f"dataloader.streets={broken}", "train.max_iter=1", "dataloader.test.night=null")
    printed = ends([runs.start(tmp_path / "run", *options, how=LAUNCHER)], status=1)
    assert printed.count("error: ") == 1 and "001.png: expected a complete" in printed
    assert "001.png" in (tmp_path / "run" / "error.txt").read_text()
    assert "Traceback" not in printed


def test_invalid_setting_prints_one_error(runs, tmp_path):
    printed = ends([runs.start(tmp_path, "train.device=moon", how=TORCHRUN)], status=1)
    assert printed.count("error: ") == 1 and "train.device" in printed
