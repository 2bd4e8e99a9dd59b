"""The initialisers: definitions, both adapters, pairs of names, functions."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from recyclelora import DualLoRALinear, adapt
from recyclelora.adapters import (
    AdapterSettings,
    activate_pair,
    active,
    add_pair,
    decomposition,
    export,
    initialisers,
    load_adapters,
    remove_adapters,
    save_adapters,
)
from recyclelora.adapters.initialisers import INITIALISERS, Initialiser

from ..support.trained_adapters import learn

SHAPES = [(48, 32), (32, 48), (32, 32)]
PAIRS = [("rrqr", "kaiming"), ("kaiming", "rrqr"), ("mica", "pissa"), ("orthogonal", "olora")]
RANKS = [(9, 3), (5, 0), (0, 4)]


def noise(weight, r, side):
    """A user's function whose product is not zero."""
    scale = {"main": 0.1, "sub": 0.2}[side]
    return scale * weight.new_ones(r, weight.shape[1]), scale * weight[:, :r]


def make(out=48, inn=32, r_main=9, r_sub=3, dtype=torch.float32, **settings):
    linear = nn.Linear(inn, out, dtype=dtype)
    return linear, DualLoRALinear.from_linear(linear, r_main, r_sub, **settings)


def network(dtype=torch.float32):
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 16)).to(dtype)


@pytest.mark.parametrize("init", [*INITIALISERS, *PAIRS, noise])
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_init_keeps_output_and_pretrained_weight(shape, ranks, init):
    linear, layer = make(*shape, *ranks, init=init, alpha=3.0)
    x = torch.randn(2, 7, shape[1])
    torch.testing.assert_close(layer(x), linear(x), atol=2e-5, rtol=0)
    torch.testing.assert_close(layer.weight, linear.weight, atol=2e-6, rtol=0)
    assert torch.equal(layer.pretrained_weight(), linear.weight)
    learn(layer)
    assert not torch.allclose(layer(x), linear(x), atol=1e-3)
    with active(layer, main=False, sub=False):
        assert torch.equal(layer(x), linear(x))
    assert torch.equal(remove_adapters(layer).weight, linear.weight)


@pytest.mark.parametrize("init", [*INITIALISERS, ("rrqr", "kaiming"), noise])
def test_init_half_precision_base_float32_factors(init):
    model, x = network(torch.bfloat16), torch.randn(3, 16, dtype=torch.bfloat16)
    plain = copy.deepcopy(model)
    adapt(model, 4, 2, init=init)
    assert model[0].lora_A_main.dtype == model[0].initial_B.dtype == torch.float32
    torch.testing.assert_close(model(x), plain(x), atol=0.05, rtol=0.05)
    assert all(torch.equal(a.pretrained_weight(), b.weight) for a, b in zip(model[::2], plain[::2]))


def product(layer, side):
    A, B = getattr(layer, f"lora_A_{side}"), getattr(layer, f"lora_B_{side}")
    return (layer.scaling * B.double() @ A.double()).detach()


@pytest.mark.parametrize("shape", SHAPES)
def test_pissa_factors_equal_principal_part(shape):
    linear, layer = make(*shape, init="pissa", alpha=3.0)
    u, s, vt = torch.linalg.svd(linear.weight.detach().double(), full_matrices=False)
    torch.testing.assert_close(product(layer, "main"), (u[:, :9] * s[:9]) @ vt[:9])
    torch.testing.assert_close(product(layer, "sub"), (u[:, 9:12] * s[9:12]) @ vt[9:12])
    # B and A share the singular values equally.
    norms = layer.lora_B_main.norm(dim=0), layer.lora_A_main.norm(dim=1)
    torch.testing.assert_close(norms[0], (s[:9] / layer.scaling).sqrt().float())
    torch.testing.assert_close(*norms)


@pytest.mark.parametrize("shape", SHAPES)
def test_olora_factors_are_leading_qr(shape):
    linear, layer = make(*shape, init="olora")
    q, r = torch.linalg.qr(linear.weight.detach())
    assert torch.equal(layer.lora_B_main, q[:, :9]) and torch.equal(layer.lora_A_main, r[:9])
    assert torch.equal(layer.lora_B_sub, q[:, 9:12]) and torch.equal(layer.lora_A_sub, r[9:12])
    removed = linear.weight.double() - layer.residual.double()
    expected = layer.scaling * q[:, :12].double() @ r[:12].double()
    torch.testing.assert_close(removed, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_mica_factors_minor_vectors_only_A_trains(shape):
    linear, layer = make(*shape, init="mica")
    u = torch.linalg.svd(linear.weight.detach().double(), full_matrices=False)[0].float()
    torch.testing.assert_close(layer.lora_B_main.data, u[:, -9:])
    torch.testing.assert_close(layer.lora_B_sub.data, u[:, -12:-9])
    assert not layer.lora_A_main.any() and torch.equal(layer.residual, linear.weight)
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trained == {"bias", "lora_A_main", "lora_A_sub"}
    layer(torch.randn(4, shape[1])).square().sum().backward()
    assert layer.lora_A_main.grad.any() and layer.lora_B_main.grad is None


@pytest.mark.parametrize("ranks", [(8, 2), (5, 3), (1, 0)])
def test_orthogonal_factors_random_zero_product(ranks):
    linear, layer = make(48, 32, *ranks, init="orthogonal")
    assert torch.equal(layer.residual, linear.weight)
    for side, rank in zip(("main", "sub"), ranks):
        if rank:
            A, B = getattr(layer, f"lora_A_{side}"), getattr(layer, f"lora_B_{side}")
            assert (B @ A).abs().max() < 1e-6
            assert torch.linalg.matrix_rank(A.detach()) == (rank + 1) // 2
            assert torch.linalg.matrix_rank(B.detach()) == rank // 2
            assert A.abs().max() < 1
    torch.manual_seed(0)
    first = make(48, 32, init="orthogonal")[1]
    assert not torch.equal(first.lora_A_main, make(48, 32, init="orthogonal")[1].lora_A_main)


@pytest.mark.slow
@pytest.mark.parametrize("init", ["pissa", "olora", "mica"])
@pytest.mark.parametrize("side", ["main", "sub"])
def test_factors_of_one_side_equal_peft(side, init):
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    base = nn.Sequential(nn.Linear(20, 28))
    config = peft.LoraConfig(
        r=6, lora_alpha=3, target_modules=["0"], init_lora_weights=init, lora_dropout=0.0
    )
    theirs = peft.get_peft_model(copy.deepcopy(base), config).base_model.model[0]
    ranks = {"r_main": 0, "r_sub": 0, f"r_{side}": 6}
    ours = adapt(base, **ranks, alpha=3.0, init=init)[0]
    A, B = getattr(ours, f"lora_A_{side}"), getattr(ours, f"lora_B_{side}")
    # Singular vectors are defined up to a sign.
    sign = (B * theirs.lora_B["default"].weight).sum(0).sign()
    torch.testing.assert_close(B * sign, theirs.lora_B["default"].weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        A * sign[:, None], theirs.lora_A["default"].weight, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(ours.residual, theirs.base_layer.weight, atol=1e-5, rtol=0)
    assert B.requires_grad == theirs.lora_B["default"].weight.requires_grad


def test_pair_of_words_equals_each_word_alone():
    linear, layer = make(init=("mica", "svd"))
    mica, svd = (
        DualLoRALinear.from_linear(linear, 9, 0, alpha=0.75, init="mica"),
        DualLoRALinear.from_linear(linear, 0, 3, alpha=0.25, init="svd"),
    )
    assert layer.scaling == mica.scaling == svd.scaling
    assert torch.equal(layer.lora_B_main, mica.lora_B_main)
    assert torch.equal(layer.lora_A_sub, svd.lora_A_sub)
    assert layer.settings.init == ("mica", "svd")
    rows = make(init=("rrqr", "kaiming"))[1].lora_A_main
    assert rows.sum() == 9 and ((rows == 0) | (rows == 1)).all()


def count_calls(monkeypatch):
    calls = []

    def counting(word, entry):
        def function(weight, r_main, r_sub, scaling):
            calls.append((word, r_main, r_sub))
            return entry.function(weight, r_main, r_sub, scaling)

        return dataclasses.replace(entry, function=function)

    for word, entry in INITIALISERS.items():
        monkeypatch.setitem(INITIALISERS, word, counting(word, entry))
    return calls


@pytest.mark.parametrize(
    ("init", "ranks", "expected"),
    [
        ("svd", (4, 2), [("svd", 4, 2)]),
        (("svd", "svd"), (4, 2), [("svd", 4, 2)]),
        (("rrqr", "kaiming"), (4, 2), [("rrqr", 4, 0), ("kaiming", 0, 2)]),
        (("rrqr", "svd"), (4, 0), [("rrqr", 4, 0)]),
        (("rrqr", "svd"), (0, 4), [("svd", 0, 4)]),
        ("rrqr", (0, 0), []),
    ],
)
def test_unused_initialiser_not_called(init, ranks, expected, monkeypatch):
    calls = count_calls(monkeypatch)
    make(32, 32, *ranks, init=init)
    assert calls == expected


@pytest.mark.parametrize("init", ["svd", ("mica", "pissa"), ("svd", "mica"), ("rrqr", "svd")])
def test_svd_runs_once_for_both_sides(init, monkeypatch):
    calls, svd = [], torch.linalg.svd
    monkeypatch.setattr(
        torch.linalg, "svd", lambda *args, **kwargs: calls.append(args) or svd(*args, **kwargs)
    )
    make(32, 32, init=init)
    assert len(calls) == 1


def test_kaiming_runs_no_decomposition(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError

    for name in ("svd", "qr"):
        monkeypatch.setattr(torch.linalg, name, fail)
    monkeypatch.setattr(initialisers, "rrqr", fail)
    adapt(network(), 4, 2, init="kaiming")
    adapt(network(), 4, 0, init=("kaiming", "rrqr"))


def test_settings_of_pair_reduce_to_one_word():
    for init, ranks, word in [
        (("rrqr", "kaiming"), (4, 0), "rrqr"),
        (("rrqr", "kaiming"), (0, 4), "kaiming"),
        (["svd", "svd"], (4, 2), "svd"),
        (["rrqr", "svd"], (4, 2), ("rrqr", "svd")),
        (noise, (4, 2), "custom"),
    ]:
        assert AdapterSettings(*ranks, init=init).of_pair().init == word
    # If the factors are one-hot, there is no dense A, and only the pivot columns of W0 are stored.
    _, layer = make(32, 32, 4, 0, init=("rrqr", "kaiming"), sparse_a=True)
    assert layer.initial_A is None and layer.pretrained.shape == (32, 4)
    model = nn.ModuleDict({"a": nn.Linear(16, 16), "b": nn.Linear(16, 16)})
    adapt(model, 4, 0, init=("rrqr", "kaiming"), ranks={"b": (4, 2)})
    assert model["a"].settings.init == "rrqr" and not model["b"].lora_B_sub.any()


@pytest.mark.parametrize(
    "init", [("rrqr", "kaiming"), ("kaiming", "rrqr"), "pissa", "olora", "mica", noise]
)
def test_sparse_a_without_one_hot_A_raises(init):
    with pytest.raises(ValueError, match="sparse_a=True needs init='rrqr'"):
        make(init=init, sparse_a=True)


def test_function_gets_weight_rank_and_side():
    seen = []

    def spy(weight, r, side):
        seen.append((weight.clone(), r, side))
        weight.zero_()  # a copy
        return weight.new_zeros(r, weight.shape[1]), weight.new_zeros(weight.shape[0], r)

    model = network()
    plain = copy.deepcopy(model)
    adapt(model, 4, 2, init=spy)
    assert [call[1:] for call in seen] == [(4, "main"), (2, "sub")] * 2
    assert torch.equal(seen[0][0], plain[0].weight) and torch.equal(seen[2][0], plain[2].weight)
    assert torch.equal(model[0].pretrained_weight(), plain[0].weight)
    seen.clear()
    adapt(network(), 0, 2, init=spy)
    assert [call[1:] for call in seen] == [(2, "sub")] * 2


def test_function_stored_as_custom_with_factors(tmp_path):
    model = adapt(network(), 4, 2, init=noise, alpha=2.0)
    assert model[0].settings.init == "custom"
    assert torch.equal(model[0].initial_A[:4], torch.full((4, 16), 0.1))
    learn(model)
    x = torch.randn(3, 16)
    save_adapters(model, tmp_path / "a.safetensors")
    loaded = load_adapters(network(), tmp_path / "a.safetensors")
    assert loaded[0].settings.init == "custom" and torch.equal(loaded(x), model(x))
    with active(loaded, main=False, sub=False):
        assert torch.equal(loaded(x), network()(x))
    torch.testing.assert_close(export(loaded)(x), model(x), atol=1e-5, rtol=0)
    add_pair(loaded, "night", 3, 1, init=("rrqr", "mica"))
    with pytest.warns(UserWarning, match="create new optimisers"):
        activate_pair(loaded, "night")
    torch.testing.assert_close(loaded(x), network()(x), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="pass the function"):
        adapt(network(), 4, 2, init="custom")


def raising(weight, r, side):
    raise KeyError("nothing\nhere")


BAD_FUNCTIONS = {
    "raises": (raising, r"raised KeyError .* for the main adapter of layer '0'"),
    "few arguments": (lambda weight: weight, "raised TypeError"),
    "none": (lambda w, r, side: None, r"must return a pair \(A, B\)"),
    "three": (lambda w, r, side: noise(w, r, side) * 2, r"must return a pair \(A, B\)"),
    "list": (lambda w, r, side: ([0.0], [0.0]), "must return tensors"),
    "swapped": (lambda w, r, side: noise(w, r, side)[::-1], r"A of shape \(4, 16\)"),
    "rank": (lambda w, r, side: noise(w, r + 1, side), r"A of shape \(4, 16\)"),
    "double": (lambda w, r, side: [t.double() for t in noise(w, r, side)], "torch.float32, dense"),
    "integer": (lambda w, r, side: [t.long() for t in noise(w, r, side)], "torch.float32, dense"),
    "sparse": (lambda w, r, side: [t.to_sparse() for t in noise(w, r, side)], "sparse_coo"),
    "nan": (lambda w, r, side: [t / 0 for t in noise(w, r, side)], "got A with NaN or Inf"),
}


@pytest.mark.parametrize("fault", BAD_FUNCTIONS)
def test_bad_function_raises_nothing_changed(fault):
    function, words = BAD_FUNCTIONS[fault]
    model = network()
    with pytest.raises(ValueError, match=words) as caught:
        adapt(model, 4, 2, init=function)
    assert "\n" not in str(caught.value)
    assert type(model[0]) is nn.Linear and all(p.requires_grad for p in model.parameters())


def test_function_fails_at_last_layer_nothing_changed():
    def late(weight, r, side):
        A, B = noise(weight, r, side)
        return (A, B) if weight.shape == (24, 16) else (A, B / 0)

    model = network()
    with pytest.raises(ValueError, match="layer '2'"):
        adapt(model, 4, 2, init=late)
    assert type(model[0]) is nn.Linear and all(p.requires_grad for p in model.parameters())
    adapt(model, 4, 2)
    with pytest.raises(ValueError, match="layer '2'"):
        add_pair(model, "night", 4, 2, init=late)
    assert not len(model[0].pairs)


@pytest.mark.parametrize(
    "init", ["qr", "", None, 3, ["rrqr"], ("rrqr", "qr"), ("rrqr", noise), ("rrqr",) * 3, {"svd"}]
)
def test_bad_words_raise_nothing_changed(init):
    model = network()
    with pytest.raises(ValueError, match="init must be one of rrqr, svd, kaiming, pissa"):
        adapt(model, 4, 2, init=init)
    assert type(model[0]) is nn.Linear and all(p.requires_grad for p in model.parameters())


def test_further_entry_of_table_is_a_word(monkeypatch):
    def ones(weight, r_main, r_sub, scaling):
        *stack, out, inn = weight.shape
        rank = r_main + r_sub
        A = weight.new_ones(*stack, rank, inn)
        return initialisers.Factors(A, weight.new_ones(*stack, out, rank), None)

    monkeypatch.setitem(INITIALISERS, "ones", Initialiser(ones))
    model, x = network(), torch.randn(3, 16)
    adapt(model, 4, 2, init=("ones", "mica"))
    assert model[0].lora_A_main.eq(1).all() and not model[0].lora_A_sub.any()
    torch.testing.assert_close(model(x), network()(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("first", ["rrqr", "mica"])
def test_activate_pair_frozen_factors_belong_to_pair(first):
    model = adapt(network(), 4, 2, init=first)
    add_pair(model, "night", 3, 0, init="mica")
    add_pair(model, "rain", 3, 2, init="rrqr")

    def trained():
        return {n for n, p in model[0].named_parameters(recurse=False) if p.requires_grad}

    with pytest.warns(UserWarning, match="create new optimisers"):
        activate_pair(model, "night")
        assert trained() == {"lora_A_main"}
        activate_pair(model, "rain")
        assert trained() == set(model[0].FACTORS)
        activate_pair(model, "default")
    frozen = {"lora_B_main", "lora_B_sub"} if first == "mica" else set()
    assert trained() == set(model[0].FACTORS) - frozen
    assert not any(p.requires_grad for p in model[0].pairs.parameters())


@pytest.mark.parametrize("init", [*INITIALISERS, ("rrqr", "kaiming")])
def test_stacked_factors_equal_each_alone(init):
    weights = torch.randn(3, 12, 20)
    settings = AdapterSettings(3, 2, init=init)
    torch.manual_seed(0)
    stacked = decomposition.decompose(weights, settings)
    if settings.random:
        assert stacked.B.shape == (3, 12, 5)
        return
    for i, weight in enumerate(weights):
        alone = decomposition.decompose(weight, settings)
        for mine, theirs in zip(alone, stacked):
            assert mine is theirs is None or torch.equal(mine, theirs[i])


def test_adapt_on_meta_device_makes_shapes():
    for init in [*INITIALISERS, ("rrqr", "mica"), noise]:
        with torch.device("meta"):
            model = adapt(network(), 4, 2, init=init)
        assert model(torch.empty(3, 16, device="meta")).shape == (3, 16)
