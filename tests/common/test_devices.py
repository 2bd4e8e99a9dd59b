"""Selection of devices by name."""

import pytest
import torch

from recyclelora.common.devices import pick_device


@pytest.mark.skipif(torch.cuda.is_available(), reason="requires a machine without a GPU")
def test_pick_device_without_gpu_refuses_cuda():
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="torch finds none"):
        pick_device("cuda")


def test_pick_device_unknown_name_names_the_option():
    with pytest.raises(ValueError, match="--device must be auto, cpu, cuda or cuda:N, got 'tpu'"):
        pick_device("tpu", option="--device")


def test_pick_device_absent_gpu_raises(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda:1")
    with pytest.raises(
        ValueError, match=r"train\.device=cuda:2 does not exist: the GPUs here are cuda:0 to cuda:1"
    ):
        pick_device("cuda:2")
