"""The loss curve has one line per logged iteration, also in resumed runs."""

import json

import numpy as np
import pytest
from detectron2.utils.events import EventStorage

from recyclelora.engine.metrics import WINDOW, MetricsFile, recent_history, restore_history

LOSSES = np.random.default_rng(0).normal(size=60).tolist()


def run(path, start, stop, history, every=1):
    """Run iterations of a training; return the state for a checkpoint."""
    with EventStorage(start) as storage:
        restore_history(storage, history)
        file = MetricsFile(path, start=start)
        for storage.iter in range(start, stop):
            storage.put_scalar("total_loss", LOSSES[storage.iter])
            storage.put_scalar("lr", 1 / (1 + storage.iter), smoothing_hint=False)
            if (storage.iter + 1) % every == 0:
                file.write()
        file.close()
        return recent_history(storage)


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("stop", [1, 19, 30, 41])
def test_metrics_of_resumed_run_equal_uninterrupted(tmp_path, stop, every):
    run(tmp_path / "whole.json", 0, 60, {}, every)
    history = run(tmp_path / "stopped.json", 0, stop, {}, every)
    run(tmp_path / "stopped.json", stop, min(stop + 11, 60), history, every)  # lost again
    with (tmp_path / "stopped.json").open("a") as file:
        file.write('{"iteration": 52, "lr": 0.01, "total_lo')
    run(tmp_path / "stopped.json", stop, 60, json.loads(json.dumps(history)), every)
    assert (tmp_path / "stopped.json").read_text() == (tmp_path / "whole.json").read_text()
    lines = [json.loads(line) for line in (tmp_path / "whole.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == list(range(every - 1, 60, every))
    last = lines[-1]["iteration"]
    assert lines[-1]["total_loss"] == np.median(LOSSES[last + 1 - WINDOW : last + 1])
    assert len(history["total_loss"]) == min(stop, WINDOW) and "lr" not in history


def test_metrics_of_new_run_replace_old_lines(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(b'{"iteration": 3, "total_loss": 1.0}\n[]\n"text"\n\xff\xfe\n{"loss": 1}\n')
    run(path, 0, 2, {})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1]


def test_metrics_without_loss_write_no_line(tmp_path):
    file = MetricsFile(tmp_path / "metrics.json", start=5)
    with EventStorage(5) as storage:
        restore_history(storage, {"total_loss": [[1.0, 3], [2.0, 4]]})
        storage.put_scalar("time", 0.1)
        file.write()
        storage.iter = 6
        storage.put_scalar("total_loss", 6.0)
        file.write()
    (line,) = (tmp_path / "metrics.json").read_text().splitlines()
    assert json.loads(line) == {"iteration": 6, "total_loss": 2.0}
