"""Exit of a process of torchrun: DDP's reducer must be freed before the process group."""

import weakref
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from recyclelora.engine import launch, train


class Training:
    """Create a model in a cycle, then raise ``error`` if there is one.

    Attributes:
        model: a weak reference.
        at_the_end: for each end of the group, whether the model was alive.
    """

    def __init__(self, error=None):
        self.error = error
        self.at_the_end = []

    def __call__(self, *args, **options):
        model = torch.nn.Linear(1, 1)
        model.cycle = [model]
        self.model = weakref.ref(model)
        if self.error is not None:
            raise FloatingPointError(self.error)

    def end_group(self):
        self.at_the_end.append(self.model() is not None)


@pytest.fixture
def run(monkeypatch):
    """``run(main, training)``: what torchrun starts, in this process and without a group."""
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")

    options = Namespace(config_file="", opts=[], eval_only=False, resume=False)

    def run(main, training):
        monkeypatch.setattr(launch.dist, "init_process_group", lambda backend: None)
        monkeypatch.setattr(launch, "_create_local_group", lambda: None)
        monkeypatch.setattr(launch.dist, "is_initialized", lambda: True)
        monkeypatch.setattr(launch.dist, "destroy_process_group", training.end_group)
        launch.launch_processes(main, options)

    return run


def test_model_is_freed_before_process_group(run):
    training = Training()
    run(training, training)
    assert training.at_the_end == [False] and training.model() is None


def test_failure_frees_model_and_keeps_group(run):
    training = Training("the loss is not finite")
    with pytest.raises(FloatingPointError) as raised:  # and keep it with its traceback
        run(training, training)
    assert training.at_the_end == [] and training.model() is None
    assert str(raised.value) == "the loss is not finite"


def test_failure_in_training_command_frees_model(run, monkeypatch):
    tool, training = train, Training("the loss is not finite")
    cfg = SimpleNamespace(train=SimpleNamespace(output_dir="no folder"))
    monkeypatch.setattr(tool, "load_config", lambda config_file, overrides: cfg)
    monkeypatch.setattr(tool, "train", training)
    with pytest.raises(SystemExit, match="error: the loss is not finite"):
        run(tool.run, training)
    assert training.at_the_end == [] and training.model() is None
