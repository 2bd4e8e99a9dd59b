"""A run that is killed, whenever and however often, is the run that never stopped."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from .forked import ForkedRuns, assert_same_run, curve, said
from .test_lazyconfig_train_net import write_blocks

KILLS = 20
ITERATIONS = 14

# Dropout draws from torch's global generator, the average and two workers have states of their
# own, lines of the curve are medians over iterations of several lives, and periods do not divide.
OPTIONS = [
    f"train.max_iter={ITERATIONS}",
    "train.checkpoint_period=3",
    "train.log_period=2",
    "train.picture_period=5",
    "train.ema=0.9",
    "model.dropout=0.1",
    "dataloader.train.num_workers=2",
]


def kill_at(process: multiprocessing.Process, moment: float, writing: Path | None) -> bool:
    """SIGKILL after ``moment`` seconds, or the next time that a checkpoint is written there.

    Returns:
        Whether it was killed; else it had ended.
    """
    process.join(moment)
    while writing is not None and process.is_alive() and not any(writing.glob(".iter_*.tmp")):
        time.sleep(0.0002)
    process.kill()
    process.join()
    return process.exitcode != 0


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_is_the_run_that_never_stopped(tmp_path, monkeypatch):
    for name in ("day", "night"):
        write_blocks(tmp_path / name, 4)
    runs, choose = ForkedRuns(tmp_path, OPTIONS, monkeypatch), random.Random(0)
    whole, again = tmp_path / "whole", tmp_path / "again"
    runs.finish(whole)  # the first one imports
    began = time.monotonic()
    runs.finish(again)
    duration = time.monotonic() - began
    assert_same_run(again, whole)
    assert [line["iteration"] for line in curve(whole)] == list(range(1, ITERATIONS, 2))

    kills = resumed = in_the_middle = 0
    while kills < KILLS:
        output = tmp_path / f"killed_{kills}"
        while True:
            process = runs.start(output)
            writing = output if choose.random() < 0.4 else None
            if kills == KILLS or not kill_at(process, choose.uniform(0, duration), writing):
                break
            kills += 1
            in_the_middle += any(output.glob(".iter_*.tmp"))
        process.join()
        assert process.exitcode == 0, said(output)
        assert_same_run(output, whole)
        resumed += said(output).count("Resuming from")
    assert in_the_middle > 3 and resumed > 5
