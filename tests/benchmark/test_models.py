"""Adapting does not change the outputs of any family, and idle adapters are named."""

import json

import pytest
import torch
from benchmark import measure, model_families, models
from torch import nn

FEW = ["nn.Transformer", "ViT, in_proj_weight"]


@pytest.mark.slow
@pytest.mark.parametrize("name", model_families.FAMILIES)
def test_adapted_family_same_outputs_no_idle_adapter(name):
    family = model_families.FAMILIES[name]
    pytest.importorskip(family.library, reason=f"needs pip install {family.library}")
    found = models.measure_family(name, family)
    assert found["layers"] and found["change"]["float32"] <= 1e-5


def test_main_writes_json_of_families(tmp_path):
    models.main(["--families", *FEW, "--output", str(tmp_path / "models.json")])
    result = json.loads((tmp_path / "models.json").read_text())
    assert [run["family"] for run in result["runs"]] == FEW
    assert [run["warned"] for run in result["runs"]] == [6, 2]
    assert result["environment"]["versions"]["torchvision"]


class Changing(nn.Module):
    """A model whose output changes with each call."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(64, 64), 0

    def forward(self, x):
        self.calls += 1
        return self.calls * self.linear(x)


class Idle(Changing):
    """A model whose layer gets no gradient, but affects the output if only shapes are computed."""

    def forward(self, x):
        return self.linear(x) if x.is_meta else x * torch.ones(64, requires_grad=True)


@pytest.mark.parametrize(("kind", "words"), [(Changing, "changed by"), (Idle, "no gradient")])
def test_broken_promise_raises(kind, words):
    family = model_families.Family("torch", lambda: (kind(), {"x": torch.randn(2, 64)}))
    with pytest.raises(measure.WrongResult, match=words):
        models.measure_family("broken", family)
