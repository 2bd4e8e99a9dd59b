"""Linear layers in which adapters would have no effect are found, and no others."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recyclelora import adapt
from recyclelora.adapters import (
    activate_pairs,
    active,
    adapter_parameters,
    merge,
    unreached_linears,
)


class Branches(nn.Module):
    """Linear layers that are used, bypassed, or used without an effect on the output."""

    def __init__(self):
        super().__init__()
        self.called = nn.Linear(4, 4)
        self.twice = nn.Linear(4, 4)
        self.read = nn.Linear(4, 4)
        self.idle = nn.Linear(4, 4)
        self.vain = nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.register_buffer("shift", torch.ones(4), persistent=False)

    def forward(self, x, times):
        x = self.twice(self.twice(self.called(x))) * times + self.shift
        self.vain(x)
        x = F.linear(x, self.read.weight, self.read.bias)
        return {"out": [self.attention(x, x, x)[0], None], "name": "branches"}


UNREACHED = ["idle", "vain"]  # adapters in "read" and "attention.out_proj" have an effect


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_unreached_linears_returns_unused_layers(device, mode):
    with torch.device(device):
        module, x = Branches(), torch.zeros(2, 3, 4)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with mode():  # the result must not depend on the mode of the caller
        assert unreached_linears(module.requires_grad_(False), x, 3) == UNREACHED
    assert not any(linear._forward_hooks for linear in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert all(p.device.type == device for p in [*module.parameters(), *module.buffers()])
    if device == "cpu":
        assert all(map(torch.equal, module.state_dict().values(), before.values()))


def test_unreached_linears_with_checkpointing_same_result():
    class Checkpointed(Branches):
        def forward(self, x, times):
            return checkpoint(super().forward, x, times, use_reentrant=False)

    assert unreached_linears(Checkpointed(), torch.zeros(2, 3, 4), 3) == UNREACHED


@pytest.mark.parametrize("state", ["merged", "off", "mixture"])
def test_unreached_linears_any_state_same_result(state):
    module = adapt(Branches(), 2, 1)
    if state == "merged":
        merge(module)
    elif state == "mixture":
        activate_pairs(module, {"default": 0.5})
    merged_weight, mixture = module.called.merged_weight, module.called.mixture
    with active(module, main=state != "off", sub=state != "off"):
        assert unreached_linears(module, torch.zeros(2, 3, 4), 3) == UNREACHED
    assert module.called.merged_weight is merged_weight and module.called.mixture is mixture


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    name: str = "logits"


def test_unreached_linears_dataclass_output_read():
    class Classifier(Branches):
        def forward(self, x, times):
            return Output(super().forward(x, times)["out"][0])

    assert unreached_linears(Classifier(), torch.zeros(2, 3, 4), 3) == UNREACHED


def test_unreached_linears_values_read_by_numpy_right():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

        def forward(self, x):
            return self.experts[int(x.detach().numpy().max() > 0)](x)

    assert unreached_linears(Routed(), torch.ones(2, 4)) == ["experts.0"]
    with torch.device("meta"), pytest.raises(RuntimeError, match="its weights first"):
        unreached_linears(Routed(), torch.ones(2, 4))


def test_unreached_linears_match_layers_without_gradient():
    module = Branches()
    unreached = set(unreached_linears(module, torch.zeros(2, 3, 4), 3))
    adapt(module, r_main=2, r_sub=1)
    assert set(unreached_linears(module, torch.zeros(2, 3, 4), times=3)) == unreached
    module(torch.randn(2, 3, 4), 3)["out"][0].square().sum().backward()
    main, sub = adapter_parameters(module)
    without = {name.rsplit(".", 1)[0] for name, p in (main | sub).items() if p.grad is None}
    assert without == unreached


def test_unreached_linears_after_error_leaves_no_hooks():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x) + torch.zeros(5, device=x.device)

    module = Broken()
    with pytest.raises(RuntimeError):
        unreached_linears(module, torch.zeros(1, 4))
    assert not module.linear._forward_hooks


def test_unreached_linears_without_linears_empty():
    assert unreached_linears(nn.ReLU(), torch.zeros(1)) == []
    assert unreached_linears(nn.Sequential(nn.Linear(2, 2), nn.Identity()), torch.zeros(1, 2)) == []
