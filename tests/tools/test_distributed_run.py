"""Two gloo processes train and evaluate what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from .test_lazyconfig_train_net import ROOT, TINY, TOOL, write_blocks

# Biases whose gradient is zero but for rounding, which AdamW blows up to full steps: those of
# attention keys, and those before a GroupNorm of one channel a group.
NOISE = ("in_proj_bias", "qkv.bias", *(f"input_proj.{level}.0.bias" for level in range(3)))


def run(output: Path, streets: Path, *launcher: str) -> dict:
    options = [f"train.output_dir={output}", f"dataloader.streets={streets}"]
    command = [sys.executable, *launcher, str(TOOL), "--config-file", str(TINY), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return torch.load(output / "iter_0000004.pth", weights_only=True)["model"]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path):
    for name in ("day", "night"):
        write_blocks(tmp_path / name, 4)
    one = run(tmp_path / "one", tmp_path)
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")
    two = run(tmp_path / "two", tmp_path, *torchrun)
    assert one.keys() == two.keys()
    for name, value in one.items():
        if not name.endswith(NOISE):
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=name)
    first, second = (
        json.loads((tmp_path / run / "domains.json").read_text()) for run in ("one", "two")
    )
    assert [d["images"] for d in second["domains"].values()] == [4, 2]
    np.testing.assert_allclose(second["mean_mIoU"], first["mean_mIoU"], atol=0.5)
