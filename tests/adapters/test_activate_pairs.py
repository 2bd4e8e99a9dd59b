"""Weighted sums of several pairs."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recyclelora.adapters import (
    activate_pair,
    activate_pairs,
    active,
    adapted_layers,
    adapter_parameters,
    export,
    load_adapters,
    merge,
    remove_adapters,
    save_adapters,
    unmerge,
)

from ..support.trained_adapters import learn, three_pairs

pytestmark = pytest.mark.filterwarnings("ignore:.*optimisers")

NAMES = ("default", "night", "rain")
SETTINGS = {
    "dense": {},
    "sparse": {"sparse_a": True},
    "svd": {"init": "svd"},
    "mixed": {"init": ("rrqr", "kaiming")},
}


def network():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 12))


def trained(model=None, **settings):
    return three_pairs(network() if model is None else model, **settings)


def weights_of(model, name):
    """The weight of each layer under one pair, in float64."""
    activate_pair(model, name)
    found = [layer.effective_weight().double() for layer in adapted_layers(model).values()]
    activate_pair(model, "default")
    return found


MIXTURES = [
    {"night": 0.7, "rain": 0.3},
    {"default": -1.5, "night": 2.0, "rain": 0.25},
    {"rain": 1e-3},
    {"night": 1, "default": 0.0},
]


@pytest.mark.parametrize("weights", MIXTURES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_activate_pairs_weight_is_sum_of_changes(settings, weights):
    model, plain = trained(**SETTINGS[settings]), network()
    alone = {name: weights_of(model, name) for name in NAMES}
    activate_pairs(model, weights)
    for i, (layer, base) in enumerate(zip(adapted_layers(model).values(), plain[::2])):
        base = base.weight.detach().double()
        expected = base + sum(w * (alone[name][i] - base) for name, w in weights.items())
        for weight in (layer.weight, layer.effective_weight()):
            assert not weight.requires_grad
            torch.testing.assert_close(weight.double(), expected, atol=3e-6, rtol=0)
        x = torch.randn(5, layer.in_features)
        out = nn.functional.linear(x, expected.float(), layer.bias)
        torch.testing.assert_close(layer(x), out, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_activate_pairs_one_pair_equals_activate_pair(name):
    model, x = trained(), torch.randn(5, 16)
    activate_pair(model, name)
    expected = model(x).detach()
    activate_pair(model, "default")
    activate_pairs(model, {name: 1.0})
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)


def test_activate_pairs_empty_equals_adapters_off():
    model, x = trained(), torch.randn(5, 16)
    activate_pairs(model, {})
    assert torch.equal(model(x), network()(x))
    activate_pairs(model, {"night": 1.0})
    with active(model, main=False, sub=False):
        assert torch.equal(model(x), network()(x))


@pytest.mark.parametrize("main", [True, False])
def test_activate_pairs_inside_active_uses_one_side(main):
    model, x = trained(), torch.randn(5, 16)
    activate_pair(model, "night")
    with active(model, main=main, sub=not main):
        expected = model(x).detach()
    activate_pairs(model, {"night": 1.0})
    with active(model, main=main, sub=not main):
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)


def test_activate_pairs_gives_factors_no_gradient():
    model, x = trained().requires_grad_(True), torch.randn(5, 16, requires_grad=True)
    activate_pairs(model, {"default": 0.5, "night": 0.5})
    model(x).square().sum().backward()
    assert x.grad.any() and model[0].bias.grad.any()
    assert all(p.grad is None for name, p in model.named_parameters() if "lora_" in name)
    expected = x.grad.clone()
    merge(model)
    (merged_grad,) = torch.autograd.grad(model(x).square().sum(), x)
    torch.testing.assert_close(merged_grad, expected, atol=1e-4, rtol=1e-4)


def test_activate_pair_after_mixture_computes_and_trains():
    model, x = trained(), torch.randn(5, 16)
    expected, state = model(x).detach(), copy.deepcopy(model.state_dict())
    activate_pairs(model, {"night": 0.7, "rain": 0.3})
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    activate_pair(model, "default")
    assert torch.equal(model(x), expected)
    model(x).sum().backward()
    assert all(p.grad is not None for group in adapter_parameters(model) for p in group.values())
    activate_pairs(model, {"night": 0.7, "rain": 0.3})
    mixed = model(x)
    activate_pair(model, "night")
    activate_pairs(model, {"night": 0.7, "rain": 0.3})
    torch.testing.assert_close(model(x), mixed, atol=1e-5, rtol=0)


def test_mixture_merge_export_copy_follow():
    model, x = trained(), torch.randn(5, 16)
    with torch.no_grad():
        before = model(x)
        activate_pairs(model, {"night": 0.7, "rain": 0.3})
        mixed = model(x)
        merge(model)
        torch.testing.assert_close(model(x), mixed, atol=1e-5, rtol=0)
        assert torch.equal(model[0].weight, model[0].merged_weight)
        activate_pairs(model, {"night": -1.0})  # stays merged
        assert model[0].merged_weight is not None
        negative = model(x)
        unmerge(model)
        torch.testing.assert_close(model(x), negative, atol=1e-5, rtol=0)
        merge(model)
        activate_pair(model, "default")
        torch.testing.assert_close(model(x), before, atol=1e-5, rtol=0)
        unmerge(model)
        assert torch.equal(model(x), before)
        activate_pairs(model, {"night": 0.7, "rain": 0.3})
        for other in (copy.deepcopy(model), export(model)):
            torch.testing.assert_close(other(x), mixed, atol=1e-5, rtol=0)
        assert torch.equal(remove_adapters(model)(x), network()(x))


def test_mixture_follows_new_values_and_casts():
    model, x = trained(), torch.randn(5, 16)
    activate_pairs(model, {"default": 0.5, "night": 0.5})
    other = copy.deepcopy(model)
    learn(other)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(x), other(x))
    torch.testing.assert_close(
        model.to(torch.bfloat16)(x.bfloat16()).float(), other(x), atol=0.1, rtol=0.1
    )


def test_mixture_save_raises_load_replaces(tmp_path):
    model, x = trained(), torch.randn(5, 16)
    save_adapters(model, tmp_path / "a.safetensors")
    expected = model(x).detach()
    activate_pairs(model, {"night": 0.7, "rain": 0.3})
    with pytest.raises(ValueError, match=r"several pairs .*activate_pair\(\) first"):
        save_adapters(model, tmp_path / "mixture.safetensors")
    assert not (tmp_path / "mixture.safetensors").exists()
    load_adapters(model, tmp_path / "a.safetensors", name="default")
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_mixture_checkpointing_right_or_raises(use_reentrant):
    model = trained()
    x = torch.randn(3, 16, requires_grad=True)
    activate_pairs(model, {"night": 0.7, "rain": 0.3})
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    checkpoint(model, x, use_reentrant=use_reentrant).square().sum().backward()
    torch.testing.assert_close(x.grad, expected)
    out = checkpoint(model, x, use_reentrant=use_reentrant)
    activate_pairs(model, {"night": 0.3, "rain": 0.7})
    with pytest.raises(RuntimeError, match="state of an adapted layer"):
        out.square().sum().backward()


def test_mixture_compiled_model_follows():
    model, x = trained(), torch.randn(5, 16)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for weights in ({"night": 0.7}, {"night": 0.2, "rain": -1.0}, {}):
            activate_pairs(model, weights)
            torch.testing.assert_close(compiled(x), model(x))
        activate_pair(model, "night")
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ({"night": 1.0, "dusk": 1.0}, ValueError, "no adapter pair 'dusk'"),
        ({"rain": 1.0, "night": float("nan")}, ValueError, "'night' must be a finite number"),
        ({"rain": 1.0, "night": "1"}, ValueError, "'night' must be a finite number"),
        ({"night": True}, ValueError, "'night' must be a finite number"),
        (["night"], TypeError, "weights must map names"),
        ({3: 1.0}, ValueError, "no adapter pair 3"),
    ],
)
def test_activate_pairs_invalid_nothing_changed(weights, error, words):
    model, x = trained(), torch.randn(5, 16)
    before = model(x).detach()
    with pytest.raises(error, match=words):
        activate_pairs(model, weights)
    assert torch.equal(model(x), before)
    with pytest.raises(ValueError, match="call adapt"):
        activate_pairs(network(), {})
