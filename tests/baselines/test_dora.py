"""DoRA compared with its equation, its gradient rule, and peft's layer."""

import pytest
import torch
from torch import nn

from recyclelora.adapters import merge, merged, unmerge
from recyclelora.baselines import DoRALinear, dora


def moved(layer):
    """Change all trainable parameters, so that none has its initial value."""
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    return layer


def test_dora_keeps_the_output_and_trains_its_parameters(vit):
    module, images = vit(), torch.randn(2, 3, 64, 64)
    before = module(images)
    assert dora(module, rank=3, alpha=3.0) is module
    for level, feature in module(images).items():
        torch.testing.assert_close(feature, before[level], atol=1e-5, rtol=0)
    trains = {n.rpartition(".")[2] for n, p in module.named_parameters() if p.requires_grad}
    assert trains == {"lora_A", "lora_B", "magnitude"}
    layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
    assert layers and all(isinstance(layer, DoRALinear) for layer in layers)


@pytest.mark.parametrize("bias", [True, False])
def test_dora_forward_and_gradients_follow_the_equation(bias):
    layer = moved(DoRALinear(nn.Linear(7, 5, bias=bias).double(), rank=3, alpha=6.0))
    x, g = torch.randn(4, 7, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    A, B, m = (
        p.detach().clone().requires_grad_() for p in (layer.lora_A, layer.lora_B, layer.magnitude)
    )
    direction = layer.weight + 2.0 * B @ A
    norm = direction.norm(dim=1, keepdim=True).detach()  # a constant (DoRA, section 4.3)
    expected = nn.functional.linear(x, m[:, None] * direction / norm, layer.bias)
    torch.testing.assert_close(layer(x), expected)
    expected.backward(g)
    layer.zero_grad()
    layer(x).backward(g)
    for own, other in ((layer.lora_A, A), (layer.lora_B, B), (layer.magnitude, m)):
        torch.testing.assert_close(own.grad, other.grad)


def test_dora_merged_agrees_and_unmerging_is_exact(vit):
    module, images = moved(dora(vit(), rank=3, alpha=3.0)), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain = module(images)["res4"]
        state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with merged(module):
            torch.testing.assert_close(module(images)["res4"], plain, atol=1e-4, rtol=1e-4)
        assert torch.equal(module(images)["res4"], plain)
    assert module.state_dict().keys() == state.keys()
    merge(module)
    with pytest.raises(RuntimeError, match="called through merged adapters"):
        module(images)["res4"].sum().backward()
    unmerge(module)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in state.items())


def test_dora_norms_under_autocast_are_exact():
    linear, x = nn.Linear(64, 48, bias=False), torch.randn(8, 64)
    layer = DoRALinear(linear, rank=4, alpha=4.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), linear(x))  # m / norm is exactly 1


def test_dora_row_of_zeros_has_finite_gradients():
    linear = nn.Linear(4, 3)
    nn.init.zeros_(linear.weight)
    layer = DoRALinear(linear, rank=2, alpha=2.0)
    layer(torch.randn(2, 4)).sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.requires_grad)


def test_dora_on_meta_device_gives_the_same_shapes(vit):
    with torch.device("meta"):
        shapes = dora(vit(), rank=3, alpha=3.0)
    module = dora(vit(), rank=3, alpha=3.0)
    assert {n: t.shape for n, t in shapes.state_dict().items()} == {
        n: t.shape for n, t in module.state_dict().items()
    }
    with pytest.raises(RuntimeError, match="no values to move"):
        shapes.to_empty(device="cpu")
    shapes.load_state_dict(module.state_dict(), assign=True)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(shapes(images)["res5"], module(images)["res5"])


def test_dora_invalid_arguments_raise_and_change_nothing():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    for settings, words in (
        ({"rank": 5}, "rank=5 is above min"),
        ({"rank": 0}, "rank must be a whole number from 1"),
        ({"rank": 2, "alpha": 0}, "alpha must be a number"),
    ):
        with pytest.raises(ValueError, match=words):
            dora(model, **settings)
    assert all(type(layer) is nn.Linear for layer in model)
    dora(model, rank=2)
    with pytest.raises(ValueError, match="adapted already"):
        dora(model, rank=2)


@pytest.mark.slow
def test_dora_agrees_with_peft():
    peft = pytest.importorskip("peft")
    theirs = nn.Sequential(nn.Linear(12, 9)).double()
    layer = moved(DoRALinear(theirs[0], rank=4, alpha=6.0))
    config = peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=["0"])
    theirs = peft.get_peft_model(theirs, config).double()
    other = theirs.base_model.model[0]
    magnitude = other.lora_magnitude_vector["default"].weight
    pairs = (
        (layer.lora_A, other.lora_A["default"].weight),
        (layer.lora_B, other.lora_B["default"].weight),
        (layer.magnitude, magnitude),
    )
    with torch.no_grad():
        for own, their in pairs:
            their.copy_(own)
    x, g = torch.randn(5, 12, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    torch.testing.assert_close(layer(x), theirs(x))
    layer(x).backward(g)
    theirs(x).backward(g)
    for own, their in pairs:
        torch.testing.assert_close(own.grad, their.grad)
