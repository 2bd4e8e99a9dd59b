"""The end of a process that torchrun started."""

import weakref
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from recyclelora.engine import launch


def test_nothing_of_the_model_outlives_the_processes_group(tool_module, monkeypatch):
    """Also when the run failed: what DDP's reducer is the last to hold may never end."""
    tool = tool_module("lazyconfig_train_net")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    models, alive = [], []

    def train(cfg, resume):
        model = torch.nn.Linear(1, 1)
        model.cycle = [model]
        models.append(weakref.ref(model))
        raise FloatingPointError("the loss is not finite")

    cfg = SimpleNamespace(train=SimpleNamespace(output_dir="no folder"))
    monkeypatch.setattr(tool, "load_config", lambda args: cfg)
    monkeypatch.setattr(tool, "train", train)
    monkeypatch.setattr(launch.dist, "init_process_group", lambda backend: None)
    monkeypatch.setattr(launch, "_create_local_group", lambda: None)
    monkeypatch.setattr(
        launch.dist, "destroy_process_group", lambda: alive.extend(model() for model in models)
    )
    with pytest.raises(SystemExit, match="error: the loss is not finite"):
        launch.launch_processes(tool.main, Namespace(eval_only=False, resume=False))
    assert alive == [None]
