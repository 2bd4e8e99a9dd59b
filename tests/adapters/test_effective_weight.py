"""Models that read a layer's weight, select layers, use checkpointing or change the active pair."""

import copy
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from recyclelora import DualLoRALinear, adapt
from recyclelora.adapters import (
    activate_pair,
    active,
    adapted_layers,
    adapter_parameters,
    add_pair,
    export,
    load_adapters,
    merge,
    remove_adapters,
    save_adapters,
    unmerge,
)

from ..support.trained_adapters import learn


def network(**settings):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
    plain = copy.deepcopy(model)
    return plain, adapt(model, **{"r_main": 4, "r_sub": 2, **settings})


def gradients(model):
    return [p.grad for group in adapter_parameters(model) for p in group.values()]


@pytest.mark.parametrize("sparse_a", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weight_read_directly_equals_forward(dtype, sparse_a):
    layer = adapt(nn.Linear(16, 24).to(dtype), 4, 2, sparse_a=sparse_a)
    learn(layer)
    x = torch.randn(5, 16, dtype=dtype)
    called, read = layer(x), F.linear(x, layer.weight, layer.bias)
    tolerance = 5e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(read, called, atol=tolerance, rtol=0)
    of_called = torch.autograd.grad(called.sum(), layer.lora_B_main)[0]
    of_read = torch.autograd.grad(read.sum(), layer.lora_B_main)[0]
    assert of_read.dtype == layer.lora_B_main.dtype and of_read.any()
    torch.testing.assert_close(of_read, of_called, atol=10 * tolerance, rtol=tolerance)
    with active(layer, main=False, sub=False):
        assert torch.equal(layer.weight, layer.pretrained_weight())
    layer.merge()
    assert torch.equal(layer.weight, layer.merged_weight) and not layer.weight.requires_grad


def test_weight_assigned_source_tensor_changes_nothing():
    linear = nn.Linear(16, 24)
    embedding = nn.Embedding(24, 16)
    linear.weight = embedding.weight
    layer = adapt(linear, 4, 2)
    before = layer.residual.clone()
    layer.weight = embedding.weight
    copied = copy.deepcopy(layer)
    copied.weight = embedding.weight  # the copy compares values
    assert torch.equal(layer.residual, before)
    for value in (torch.zeros(24, 16), nn.Parameter(torch.zeros(24, 16)), None):
        with pytest.raises(ValueError, match="cannot be assigned"):
            layer.weight = value
    assert torch.equal(layer.residual, before)


def test_multihead_attention_out_proj_adapted():
    attention = nn.MultiheadAttention(32, 4, batch_first=True)
    x = torch.randn(2, 5, 32)
    before = attention(x, x, x)[0].detach()
    with pytest.warns(UserWarning, match="in_proj_weight"):
        adapt(attention, 4, 2)
    assert [*adapted_layers(attention)] == ["out_proj"]
    out = attention(x, x, x)[0]
    torch.testing.assert_close(out, before, atol=1e-5, rtol=0)
    out.square().sum().backward()
    assert all(grad.any() for grad in gradients(attention))


def test_encoder_layer_fused_path_after_export_same_output():
    encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True).eval()
    x = torch.randn(2, 5, 32)
    adapt(encoder, 4, 2, exclude="self_attn")
    learn(encoder)
    with torch.no_grad():
        fused, exported = encoder(x), export(encoder)(x)
    torch.testing.assert_close(fused, encoder(x).detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(exported, fused, atol=1e-5, rtol=0)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_backward_in_forward_state_right(use_reentrant):
    _, model = network()
    learn(model)
    x = torch.randn(3, 16, requires_grad=True)

    def gradient(recompute):
        model.zero_grad()
        with active(model, main=True, sub=False):
            out = checkpoint(model, x, use_reentrant=use_reentrant) if recompute else model(x)
            out.square().sum().backward()
        return [grad for grad in gradients(model) if grad is not None]

    for mine, expected in zip(gradient(True), gradient(False), strict=True):
        torch.testing.assert_close(mine, expected)


def test_checkpointing_backward_outside_active_right():
    _, model = network()
    learn(model)
    x, results = torch.randn(3, 16), []
    for recompute in (False, True):
        model.zero_grad()
        with active(model, main=False, sub=True):
            out = checkpoint(model, x, use_reentrant=False) if recompute else model(x)
        out.square().sum().backward()
        results.append([grad for grad in gradients(model) if grad is not None])
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected)


def test_checkpointing_reentrant_other_state_raises():
    _, model = network()
    x = torch.randn(3, 16, requires_grad=True)
    with active(model, main=True, sub=False):
        out = checkpoint(model, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match="state of an adapted layer"):
        out.sum().backward()


CHANGES = {
    "merge": (lambda model: None, merge),
    "unmerge": (merge, unmerge),
    "pair of a merged model": (merge, lambda model: activate_pair(model, "night")),
}


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_checkpointing_other_merged_state_raises(change, read, use_reentrant):
    layer = network()[1][0]
    learn(layer)
    add_pair(layer, "night", 4, 2)
    layer.requires_grad_(False)  # a merged layer with trainable factors raises in any backward pass
    x = torch.randn(3, 16, requires_grad=True)
    before, after = CHANGES[change]
    before(layer)
    function = (lambda x: F.linear(x, layer.weight)) if read else layer
    out = checkpoint(function, x, use_reentrant=use_reentrant)
    after(layer)
    with pytest.raises(RuntimeError, match="state of an adapted layer"):
        out.sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("is_merged", [False, True])
@pytest.mark.parametrize("read", [False, True])
def test_checkpointing_off_backward_outside_right_or_raises(read, is_merged):
    plain, model = network()
    layer = model[0]
    learn(layer)
    layer.requires_grad_(not is_merged)
    if is_merged:
        merge(layer)
    x = torch.randn(3, 16, requires_grad=True)
    layer(x)  # with adapters on, as in training
    function = (lambda x: F.linear(x, layer.weight)) if read else layer
    with active(layer, main=False, sub=False):
        reentrant = checkpoint(function, x, use_reentrant=True)
        other = checkpoint(function, x, use_reentrant=False)
    other.sum().backward()
    torch.testing.assert_close(x.grad, plain[0].weight.sum(0).expand(3, 16))
    with pytest.raises(RuntimeError, match="state of an adapted layer"):
        reentrant.sum().backward()


@pytest.mark.parametrize("ranks", [(4, 2), (3, 2)])
@pytest.mark.filterwarnings("ignore:.*optimisers")
def test_checkpointing_other_pair_raises(ranks):
    _, model = network()
    add_pair(model, "night", *ranks)
    out = checkpoint(model, torch.ones(3, 16), use_reentrant=False)
    activate_pair(model, "night")
    with pytest.raises(RuntimeError, match="state of an adapted layer"):
        out.sum().backward()


def test_active_in_thread_leaves_other_threads():
    plain, model = network()
    learn(model)
    x, inside, done, seen = torch.randn(2, 16), threading.Event(), threading.Event(), []

    def switched_off():
        with torch.no_grad(), active(model, main=False, sub=False):
            inside.set()
            done.wait(10)
            seen.append(model(x))

    with torch.no_grad():
        expected = model(x)
        thread = threading.Thread(target=switched_off)
        thread.start()
        inside.wait(10)
        assert torch.equal(model(x), expected)
        done.set()
        thread.join()
        assert torch.equal(seen[0], plain(x))


def test_activate_pair_same_settings_keeps_parameters():
    _, model = network()
    learn(model)
    before = adapter_parameters(model)
    values = {name: p.clone() for name, p in before.main.items()}
    add_pair(model, "night", 4, 2)
    activate_pair(model, "night")
    after = adapter_parameters(model)
    assert all(after.main[name] is before.main[name] for name in before.main)
    assert not torch.equal(after.main["0.lora_A_main"], values["0.lora_A_main"])
    activate_pair(model, "default")
    assert all(torch.equal(p, values[name]) for name, p in before.main.items())


def test_activate_pair_other_settings_warns():
    _, model = network()
    add_pair(model, "night", 2, 1)
    with pytest.warns(UserWarning, match="create new optimisers"):
        activate_pair(model, "night")


@pytest.mark.parametrize("ranks", [(4, 0), (0, 4)])
def test_adapt_one_rank_zero_no_empty_parameters(ranks, tmp_path):
    plain, model = network(r_main=ranks[0], r_sub=ranks[1])
    assert all(p.numel() for p in model.parameters())
    learn(model)
    model(torch.randn(2, 16)).sum().backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    nn.utils.clip_grad_norm_(parameters, 1.0, float("inf"))
    save_adapters(model, tmp_path / "a.safetensors")
    x = torch.randn(2, 16)
    loaded = load_adapters(copy.deepcopy(plain), tmp_path / "a.safetensors")
    assert torch.equal(loaded(x), model(x))


def test_cast_to_half_keeps_factors_in_float32():
    _, model = network()
    model.to(torch.bfloat16)
    assert model[0].residual.dtype == model[0].bias.dtype == torch.bfloat16
    assert model[0].lora_A_main.dtype == model[0].initial_B.dtype == torch.float32
    assert model[0].pretrained_weight().dtype == torch.bfloat16
    assert model(torch.randn(2, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cast_double_to_half_float32_factors(dtype):
    torch.manual_seed(1)
    layer = adapt(nn.Linear(16, 24).double(), r_main=4, r_sub=2)
    learn(layer)
    x = torch.randn(5, 16, dtype=torch.float64)
    expected = layer(x).detach()
    layer.to(dtype)
    assert layer.lora_A_main.dtype == layer.initial_B.dtype == torch.float32
    out = layer(x.to(dtype))
    torch.testing.assert_close(out.double(), expected, atol=0.1, rtol=0)
    out.sum().backward()
    assert layer.lora_A_main.grad.dtype == torch.float32


def test_adapt_selects_layers_and_ranks():
    def build():
        return nn.ModuleDict(
            {"a": nn.Linear(16, 16), "b": nn.Linear(16, 16), "head": nn.Linear(16, 3)}
        )

    model = adapt(build(), 4, 2, exclude="head")
    assert [*adapted_layers(model)] == ["a", "b"] and not model.head.weight.requires_grad
    assert [*adapted_layers(adapt(build(), 4, 2, include=["a"]))] == ["a"]
    model = adapt(build(), 4, 2, ranks={"*": (2, 1), "head": (0, 0), "b": (3, 0)})
    ranks = {n: (m.settings.r_main, m.settings.r_sub) for n, m in adapted_layers(model).items()}
    assert ranks == {"a": (2, 1), "b": (3, 0)}
    untouched = build()
    for wrong in ({"include": "c"}, {"ranks": {"a": (40, 1)}, "exclude": "head"}):
        with pytest.raises(ValueError):
            adapt(untouched, 4, 2, **wrong)
        assert all(p.requires_grad for p in untouched.parameters())
    with pytest.raises(TypeError, match=r"include must be one or several glob patterns .*, got 3"):
        adapt(untouched, 4, 2, include=3)


def test_adapt_experts_warns_unless_excluded():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_up = nn.Parameter(torch.randn(4, 32, 16))

    model = nn.ModuleDict({"linear": nn.Linear(16, 16), "experts": Experts()})
    with pytest.warns(UserWarning, match=r"experts\.gate_up"):
        adapt(copy.deepcopy(model), 4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapt(copy.deepcopy(model), 4, 2, exclude="experts")
        adapt(model, 4, 2, exclude=(name for name in ["experts"]))


@pytest.mark.parametrize("init", ["rrqr", "svd", "kaiming"])
def test_remove_adapters_gives_pretrained_weights(init):
    plain, model = network(init=init)
    learn(model)
    removed = remove_adapters(model)
    assert removed is model and not adapted_layers(model)
    for mine, theirs in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_export_in_place_same_output():
    _, model = network()
    learn(model)
    x = torch.randn(2, 16)
    with torch.no_grad():
        expected = model(x)
        assert export(model, copy=False) is model and type(model[0]) is nn.Linear
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)


def test_merged_model_transforms_and_input_gradient():
    _, model = network()
    learn(model)
    x = torch.randn(3, 16, requires_grad=True)
    expected = torch.autograd.grad(model(x).sum(), x)[0]
    merge(model)
    torch.testing.assert_close(torch.autograd.grad(model(x).sum(), x)[0], expected)
    assert torch.func.vmap(model)(x).shape == (3, 16)
    assert torch.func.jacrev(model)(x[0]).shape == (16, 16)
    assert torch.compile(model, backend="eager", fullgraph=True)(x).shape == (3, 16)
    unmerge(model)


def test_flop_counter_counts_adapters():
    layer = DualLoRALinear.from_linear(nn.Linear(16, 24), 4, 2)
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(5, 16)).sum().backward()
    forward = 2 * 5 * (16 * 24 + 6 * (16 + 24))
    assert forward < counter.get_total_flops() < 3 * forward


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_save_wrapped_model_writes_plain_names(wrap, tmp_path):
    plain, model = network()
    learn(model)
    x = torch.randn(2, 16)
    save_adapters(wrap(model), tmp_path / "a.pt")
    assert torch.equal(load_adapters(copy.deepcopy(plain), tmp_path / "a.pt")(x), model(x))
    wrapped = load_adapters(wrap(copy.deepcopy(plain)), tmp_path / "a.pt")
    assert torch.equal(wrapped(x), model(x))
