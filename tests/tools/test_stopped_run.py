"""Runs stopped by signals, full disks and errors print one line and resume exactly."""

import os
import re
import shlex
import shutil
import signal
import sys

import pytest
import torch

from ..support.forked_runs import (
    ForkedRuns,
    assert_same_run,
    children,
    curve,
    printed,
    state,
    wait_for,
)
from ..support.training_runs import TOOL, write_blocks

pytestmark = pytest.mark.slow
ITERATIONS = 40
OPTIONS = [
    f"train.max_iter={ITERATIONS}",
    "train.checkpoint_period=15",
    "train.picture_period=0",
    "train.ema=0.99",
    "dataloader.train.num_workers=1",
]


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    write_blocks(root / "day", 40)
    write_blocks(root / "night", 2)
    return root


@pytest.fixture
def runs(streets, monkeypatch):
    return ForkedRuns(streets, OPTIONS, monkeypatch)


@pytest.fixture(scope="module")
def whole(streets, tmp_path_factory):
    """Return a run that was not interrupted."""
    output = tmp_path_factory.mktemp("run") / "whole"
    with pytest.MonkeyPatch.context() as monkeypatch:
        ForkedRuns(streets, OPTIONS, monkeypatch).finish(output)
    return output


def logged(output):
    metrics = output / "metrics.json"
    return metrics.exists() and len(metrics.read_text().splitlines())


def last_line(output):
    return printed(output).splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_prints_resume_command(runs, whole, tmp_path, number):
    output = tmp_path / "run"
    process = runs.start(output)
    wait_for(lambda: logged(output), process)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 0
    assert f"{number.name}: stopping soon" in printed(output)
    assert "Traceback" not in printed(output)
    done = state(output)["iteration"]
    assert 0 < done < ITERATIONS and logged(output) == done
    words = shlex.split(last_line(output).partition("To continue: ")[2])
    assert words[:2] == [sys.executable, str(TOOL)]
    assert "--resume" in words and f"train.output_dir={output}" in words
    runs.finish(output)
    assert f"Resuming from {output}/iter_{done:07d}.pth" in printed(output)
    assert_same_run(output, whole)


def test_signal_during_evaluation_stops_run(runs, whole, tmp_path):
    output = tmp_path / "run"
    # At this size, the evaluation takes long enough to be interrupted.
    process = runs.start(output, "evaluation.protocol.long_side=1024")
    wait_for(lambda: logged(output) and "Evaluating" in printed(output), process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 0 and "To continue:" in last_line(output)
    assert state(output)["iteration"] == ITERATIONS
    assert not (output / "domains.json").exists()
    runs.finish(output)
    assert_same_run(output, whole)


def test_periodic_evaluation_saves_checkpoint_first(runs, tmp_path):
    output = tmp_path / "run"
    process = runs.start(output, "train.eval_period=4")
    wait_for(lambda: logged(output) and "Evaluating" in printed(output), process)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 0
    assert state(output)["iteration"] == 4  # not at 15, the period


def test_signal_to_data_workers_is_ignored(runs, whole, tmp_path):
    output = tmp_path / "run"
    process = runs.start(output)
    wait_for(lambda: logged(output), process)
    for worker in children(process):
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGINT)
    process.join()
    assert process.exitcode == 0
    assert_same_run(output, whole)


def test_killed_data_worker_exits_with_one_sentence(runs, whole, tmp_path):
    output = tmp_path / "run"
    process = runs.start(output)
    wait_for(lambda: logged(output) and logged(output) >= 16, process)
    for worker in children(process):
        os.kill(worker, signal.SIGKILL)
    process.join()
    assert process.exitcode == 1
    assert re.match(
        r"error: a worker process that reads the data has died .*--resume", last_line(output)
    )
    assert "Traceback" not in printed(output)
    runs.finish(output)
    assert_same_run(output, whole)


def test_full_disk_exits_with_one_sentence(runs, whole, tmp_path):
    output = tmp_path / "run"
    process = runs.start(output)
    wait_for(lambda: any(output.glob("iter_*.pth")), process)
    process.kill()
    process.join()
    before = {path: path.read_bytes() for path in output.glob("iter_*.pth")}
    killed = printed(output)
    process = runs.start(output, limit=1_000_000)
    process.join()
    assert process.exitcode == 1
    sentence = f"error: cannot write to {output} (File too large): make room, then run the"
    assert last_line(output).startswith(sentence)
    assert last_line(output).endswith(f"--resume, which continues from {max(before).name}")
    assert "Traceback" not in printed(output).removeprefix(killed)
    assert {path: path.read_bytes() for path in output.glob("iter_*.pth")} == before
    assert not list(output.glob(".*.tmp"))
    runs.finish(output)
    assert_same_run(output, whole)


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, "truncated", "flipped", "other zip"])
def test_damaged_checkpoint_is_renamed(runs, whole, tmp_path, content):
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    newest = max(output.glob("iter_*.pth"))
    whole_file = newest.read_bytes()
    if content == "truncated":
        content = whole_file[: len(whole_file) // 2]
    elif content == "flipped":
        middle = len(whole_file) // 2
        content = whole_file[:middle] + bytes([whole_file[middle] ^ 4]) + whole_file[middle + 1 :]
    if content == "other zip":
        torch.save({"model": {}}, newest)
    else:
        newest.write_bytes(content)
    runs.finish(output, "train.checkpoint_period=37", "train.checkpoints_kept=2")
    assert f"{newest}" in printed(output) and "trying the previous checkpoint" in printed(output)
    assert (output / f"{newest.name}.damaged").exists()
    kept = sorted(path.name for path in output.glob("iter_*.pth"))
    assert kept == ["iter_0000037.pth", "iter_0000040.pth"]
    assert_same_run(output, whole)


def test_non_finite_step_saves_batch(runs, tmp_path):
    output = tmp_path / "run"
    diverging = ["optimizer.lr=1", "optimizer.weight_decay=1000"]  # grows a thousandfold per step
    process = runs.start(output, *diverging)
    process.join()
    assert process.exitcode == 1
    found = re.match(
        r"error: .* the batch of iteration (\d+) \((\S+), (\S+)\) is saved in (\S+);",
        last_line(output),
    )
    batch = torch.load(found[4], weights_only=True)
    assert batch["iteration"] == int(found[1]) == state(output)["iteration"] > 0
    assert [sample["file_name"] for sample in batch["samples"]] == [found[2], found[3]]
    assert batch["samples"][0]["image"].shape == (3, 64, 64)
    process = runs.start(output, *diverging, "train.skip_bad_batches=3")
    process.join()
    assert process.exitcode == 1
    assert "3 of at most 3" in printed(output) and "train.skip_bad_batches=4" in last_line(output)
    assert state(output)["skipped"] == [batch["iteration"] + i for i in range(3)]
    assert all(value.isfinite().all() for value in state(output)["model"].values())
    assert len(curve(output)) == batch["iteration"]
