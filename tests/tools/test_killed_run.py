"""A killed and resumed run equals an uninterrupted one."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from ..support.forked_runs import ForkedRuns, assert_same_run, curve, printed
from ..support.training_runs import write_blocks

KILLS = 20
MOST = 60  # at most; about ten are enough unless the load of the machine varies
ITERATIONS = 14

# Dropout draws from torch's global generator, the average and two workers have states of their
# own, lines of the curve are medians over iterations of several runs, and periods do not divide.
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
def test_killed_run_resumed_matches_uninterrupted_run(tmp_path, monkeypatch):
    for name in ("day", "night"):
        write_blocks(tmp_path / name, 4)
    runs, choose = ForkedRuns(tmp_path, OPTIONS, monkeypatch), random.Random(0)
    whole, again = tmp_path / "whole", tmp_path / "again"
    runs.finish(whole)  # the first run imports all modules
    began = time.monotonic()
    runs.finish(again)
    duration = time.monotonic() - began
    assert_same_run(again, whole)
    assert [line["iteration"] for line in curve(whole)] == list(range(1, ITERATIONS, 2))

    # Start as many runs as needed, because progress at a given moment depends on the machine.
    kills = resumed = in_the_middle = number = 0
    while number < MOST and (kills < KILLS or in_the_middle < 4 or resumed < 6):
        output = tmp_path / f"killed_{number}"
        number += 1
        for writing in (output, None):
            process = runs.start(output)
            moment = choose.uniform(0, duration / 2 if writing else duration)
            if not kill_at(process, moment, writing):
                break
            kills += 1
            in_the_middle += any(output.glob(".iter_*.tmp"))
        runs.finish(output)
        assert_same_run(output, whole)
        resumed += printed(output).count("Resuming from")
    assert kills >= KILLS and in_the_middle >= 4 and resumed >= 6
