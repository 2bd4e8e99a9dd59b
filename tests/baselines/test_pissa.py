"""PiSSA is a sub adapter alone with init="svd"; it starts like PiSSA in peft."""

import copy

import pytest
import torch
from torch import nn

from recyclelora import adapt


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_pissa_starts_as_in_peft(shape):
    peft = pytest.importorskip("peft")
    base = nn.Sequential(nn.Linear(*shape))
    x = torch.randn(3, shape[0])
    before = base(x).detach()
    config = peft.LoraConfig(r=5, lora_alpha=5, init_lora_weights="pissa", target_modules=["0"])
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    other = theirs.base_model.model[0]
    ours = adapt(base, r_main=0, r_sub=5, alpha=5.0, init="svd")[0]
    assert ours.scaling == other.scaling["default"] == 1.0
    product = other.lora_B["default"].weight @ other.lora_A["default"].weight
    torch.testing.assert_close(ours.lora_B_sub @ ours.lora_A_sub, product, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.residual, other.base_layer.weight, atol=1e-5, rtol=0)
    assert not ours.residual.requires_grad and not other.base_layer.weight.requires_grad
    torch.testing.assert_close(ours(x), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs(x), before, atol=1e-5, rtol=0)
