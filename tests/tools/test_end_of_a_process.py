"""The end of a process that torchrun started."""

import weakref
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from recyclelora.engine import launch


@pytest.fixture
def run(tool_module, monkeypatch):
    """``run(error)``: a process of torchrun whose training made a model, then raised ``error``.

    Returns whether the model was alive when the group was ended (None: it was not), and the model.
    """
    tool = tool_module("lazyconfig_train_net")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")

    def run(error=None):
        models, alive = [], []

        def train(cfg, resume):
            model = torch.nn.Linear(1, 1)
            model.cycle = [model]
            models.append(weakref.ref(model))
            if error is not None:
                raise FloatingPointError(error)

        cfg = SimpleNamespace(train=SimpleNamespace(output_dir="no folder"))
        monkeypatch.setattr(tool, "load_config", lambda args: cfg)
        monkeypatch.setattr(tool, "train", train)
        monkeypatch.setattr(launch.dist, "init_process_group", lambda backend: None)
        monkeypatch.setattr(launch, "_create_local_group", lambda: None)
        monkeypatch.setattr(launch.dist, "is_initialized", lambda: True)
        monkeypatch.setattr(
            launch.dist, "destroy_process_group", lambda: alive.append(models[0]() is not None)
        )
        try:
            launch.launch_processes(tool.main, Namespace(eval_only=False, resume=False))
        except SystemExit as ended:
            assert ended.code == f"error: {error}"
        return (alive[0] if alive else None), models[0]

    return run


def test_the_model_goes_before_the_group_of_processes(run):
    alive, model = run()
    assert alive is False and model() is None


def test_after_a_failure_the_model_goes_and_the_group_is_left_to_the_exit(run):
    ended, model = run("the loss is not finite")
    assert ended is None and model() is None
