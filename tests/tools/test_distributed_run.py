"""Two gloo processes train and evaluate what one does, and stop and fail together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from .test_lazyconfig_train_net import ROOT, TINY, TOOL, write_blocks

pytestmark = pytest.mark.slow
STEPS = 20
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
# Biases whose gradient is zero but for rounding, which AdamW blows up to full steps: those of
# attention keys, and those before a GroupNorm of one channel a group.
NOISE = ("in_proj_bias", "qkv.bias", *(f"input_proj.{level}.0.bias" for level in range(3)))


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    write_blocks(root / "day", 5)  # not to be shared equally by two
    write_blocks(root / "night", 4)
    return root


def start(output: Path, streets: Path, *options: str, launcher=TORCHRUN) -> subprocess.Popen:
    options = (f"train.output_dir={output}", f"dataloader.streets={streets}", *options)
    command = [sys.executable, *launcher, str(TOOL), "--config-file", str(TINY), "--resume"]
    return subprocess.Popen(
        [*command, f"train.max_iter={STEPS}", "train.picture_period=0", *options],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return said


def weights(output: Path) -> dict:
    return torch.load(output / f"iter_{STEPS:07d}.pth", weights_only=True)["model"]


def test_two_processes_train_what_one_trains(streets, tmp_path):
    finish(start(tmp_path / "one", streets, launcher=()))
    finish(start(tmp_path / "two", streets))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        if not name.endswith(NOISE):
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)
    first, second = (
        json.loads((tmp_path / run / "domains.json").read_text()) for run in ("one", "two")
    )
    assert [d["images"] for d in second["domains"].values()] == [5, 2]
    np.testing.assert_allclose(second["mean_mIoU"], first["mean_mIoU"], atol=0.5)


@pytest.mark.parametrize("to", ["launcher", "one of two"])
def test_two_processes_stop_after_the_same_step(streets, tmp_path, to):
    whole, output = tmp_path / "whole", tmp_path / "run"
    options = ("train.checkpoint_period=0", "train.ema=0.9")
    finish(start(whole, streets, *options))
    process = start(output, streets, *options)
    metrics = output / "metrics.json"
    while not metrics.exists() or not metrics.read_text():
        assert process.poll() is None
        time.sleep(0.001)
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = [int(number) for number in path.read_text().split()]
    assert len(workers) == 2
    os.kill(process.pid if to == "launcher" else workers[1], signal.SIGTERM)
    said = process.communicate()[0]
    (saved,) = output.glob("iter_*.pth")
    assert 0 < torch.load(saved, weights_only=True)["iteration"] < STEPS
    assert "-m torch.distributed.run --nproc-per-node=2 --standalone" in said
    assert said.count("to go on: ") == 1
    finish(start(output, streets, *options))
    for name, value in weights(whole).items():
        assert torch.equal(weights(output)[name], value), name


def test_two_processes_end_together_at_a_bad_batch(streets, tmp_path):
    diverging = ("optimizer.lr=1", "optimizer.weight_decay=1000")
    process = start(tmp_path, streets, *diverging)
    said = process.communicate()[0]
    assert process.returncode == 1
    assert "error: " in said and "is saved in" in said
    (batch,) = tmp_path.glob("bad_batch_*.pth")
    content = torch.load(batch, weights_only=True)
    assert len(content["samples"]) == 2
    last = max(tmp_path.glob("iter_*.pth"))
    assert torch.load(last, weights_only=True)["iteration"] == content["iteration"] > 0
