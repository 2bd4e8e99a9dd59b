"""Validation of the launcher's options."""

from argparse import Namespace
from types import SimpleNamespace

import pytest

from recyclelora.engine import launch


@pytest.fixture
def ask(monkeypatch):
    """``ask(gpus, num_machines=2)``: the launched calls for these options and number of GPUs."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def run(gpus, **options):
        cuda = SimpleNamespace(device_count=lambda: gpus)
        monkeypatch.setattr(launch, "torch", SimpleNamespace(cuda=cuda))
        monkeypatch.setattr(launch, "launch", lambda main, **given: calls.append(given))
        calls = []
        one = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
        launch.launch_processes(print, Namespace(**{**one, **options}))
        return calls[0]

    return run


@pytest.mark.parametrize(
    ("gpus", "options", "words"),
    [
        (2, {"num_gpus": 4}, "--num-gpus 4, but torch finds 2"),
        (0, {"num_machines": 2}, "--num-machines 2 needs a GPU on each"),
        (1, {"num_machines": 2, "machine_rank": 2}, "--machine-rank must be a whole number from 0"),
        (1, {"num_machines": 2}, "start all of them with --dist-url tcp://FIRST_MACHINE:PORT"),
    ],
)
def test_launch_invalid_options_raise(ask, gpus, options, words):
    with pytest.raises(ValueError, match=words) as refusal:
        ask(gpus, **options)
    assert "\n" not in str(refusal.value)


def test_launch_passes_options_to_detectron2(ask):
    options = {"num_gpus": 2, "num_machines": 3, "machine_rank": 1, "dist_url": "tcp://first:1"}
    given = ask(2, **options)
    assert given.pop("num_gpus_per_machine") == 2
    assert given.pop("args")[1].dist_url == "tcp://first:1"
    assert given == {key: options[key] for key in ("num_machines", "machine_rank", "dist_url")}
