import logging

import pytest
from detectron2.utils.events import EventStorage

from recyclelora.data import fast_decoding
from recyclelora.data.workers import BatchLoader
from recyclelora.engine import data_wait
from recyclelora.engine.data_wait import WarnOfWaiting

LOG = logging.getLogger("waiting")


@pytest.fixture
def warnings(monkeypatch, caplog):
    """``warnings(waits, loader)``: the warnings of a run whose steps take 1 s, with these waits."""
    monkeypatch.setattr(data_wait, "available_cores", lambda: 6)
    monkeypatch.setattr(fast_decoding, "is_installed", lambda: True)

    def run(waits, loader):
        hook = WarnOfWaiting(loader=loader, logger=LOG)
        with caplog.at_level(logging.INFO, "waiting"), EventStorage() as storage:
            hook.before_train()
            for wait in waits:
                if wait is not None:  # otherwise the batch is skipped
                    storage.put_scalar("data_time", wait)
                storage.put_scalar("time", 1.0)
                hook.after_step()
                storage.step()
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    return run


def loader(workers, processes=1):
    return BatchLoader([], [], num_workers=workers, processes=processes)


def test_waiting_names_the_number_of_workers_to_raise(warnings, caplog):
    (message,) = warnings([0.0] * 20 + [0.2] * 400, loader(2))
    assert message == (
        "Training waited for data 20 % of the last 50 iterations: raise "
        "dataloader.train.num_workers (2 now, 6 cores available)"
    )
    assert "Data workers: 2 (6 CPU cores are available)" in caplog.text


def test_waiting_with_a_worker_for_each_core_names_cores(warnings, monkeypatch):
    monkeypatch.setattr(fast_decoding, "is_installed", lambda: False)
    (message,) = warnings([0.5] * 70, loader(3, processes=2))
    assert "more CPU cores (6 now)" in message and "install recyclelora[fast]" in message
    assert "num_workers" not in message


@pytest.mark.parametrize(
    "waits",
    [
        [5.0] * 20 + [0.09] * 300,  # the workers start
        [0.0] * 20 + ([0.4] * 10 + [0.0] * 40) * 5,  # 8 % of a period
        [0.5] * 69,  # shorter than a period
        [0.0] * 20 + [None] * 300,
    ],
)
def test_no_warning_below_a_tenth_of_the_time(warnings, waits):
    assert warnings(waits, loader(2)) == []


def test_waiting_for_a_loader_of_the_user_is_reported(warnings):
    (message,) = warnings([0.3] * 80, iter([]))
    assert message.endswith("load it with more processes")
