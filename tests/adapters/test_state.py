import copy

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import (
    activate_pair,
    active,
    adapted_layers,
    adapter_parameters,
    add_pair,
    export,
    merge,
    merged,
    pair_names,
    unmerge,
)

from ..support.trained_adapters import learn


def build(**settings):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
    plain = copy.deepcopy(model)
    return plain, adapt(model, **{"r_main": 3, "r_sub": 2, **settings})


def test_merge_model_same_output_and_state():
    _, model = build()
    learn(model)
    x = torch.randn(4, 12)
    unmerged, before = model(x).detach(), copy.deepcopy(model.state_dict())
    merge(model)
    assert all(layer.merged_weight is not None for layer in adapted_layers(model).values())
    with torch.no_grad():
        torch.testing.assert_close(model(x), unmerged, atol=1e-5, rtol=0)
    unmerge(model)
    assert torch.equal(model(x), unmerged)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_merged_context_restores_each_layer():
    _, model = build()
    model[0].merge()
    learn(model)  # the merged weight of model[0] is now outdated
    expected = model[0].effective_weight()
    with pytest.raises(KeyError), merged(model) as inside:
        assert inside is model and model[2].merged_weight is not None
        raise KeyError
    assert model[2].merged_weight is None
    assert torch.equal(model[0].merged_weight, expected)
    with merged(nn.Linear(2, 2)):
        pass


def test_active_after_error_restored_and_nests():
    plain, model = build()
    learn(model)
    x = torch.randn(4, 12)
    full = model(x)
    with pytest.raises(KeyError), active(model, main=False, sub=False):
        assert torch.equal(model(x), plain(x))
        with active(model, main=True, sub=False):
            assert not torch.equal(model(x), plain(x))
        assert torch.equal(model(x), plain(x))
        raise KeyError
    assert torch.equal(model(x), full)


def test_adapter_parameters_equal_trainable_parameters():
    _, model = build()
    main, sub = adapter_parameters(model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {**main, **sub} == trained
    assert all(name.endswith("_main") for name in main) and len(main) == len(sub) == 4


@pytest.mark.parametrize("is_merged", [False, True])
def test_export_returns_plain_model(is_merged):
    plain, model = build()
    learn(model)
    model[0].bias.requires_grad_(True)
    if is_merged:
        merge(model)
    exported, x = export(model), torch.randn(4, 12)
    assert [type(m) for m in exported] == [nn.Linear, nn.GELU, nn.Linear]
    unmerge(model)
    torch.testing.assert_close(exported(x), model(x), atol=1e-5, rtol=0)
    plain.load_state_dict(exported.state_dict())
    assert torch.equal(plain(x), exported(x))
    assert isinstance(export(model[0]), nn.Linear)
    assert model[0].bias.requires_grad and not any(p.requires_grad for p in exported.parameters())


PAIRS = [
    {"r_main": 3, "r_sub": 2},
    {"r_main": 2, "r_sub": 4, "alpha": 3.0},
    {"r_main": 3, "r_sub": 0, "sparse_a": True},
    {"r_main": 1, "r_sub": 2, "init": "svd"},
    {"r_main": 4, "r_sub": 2, "init": "kaiming"},
]


@pytest.mark.parametrize("first", PAIRS)
@pytest.mark.parametrize("second", PAIRS)
def test_pairs_switch_restores_outputs(first, second):
    plain, model = build(**first)
    x = torch.randn(4, 12)
    learn(model)
    before, state = model(x).detach(), copy.deepcopy(model.state_dict())
    add_pair(model, "night", **second)
    assert torch.equal(model(x), before)
    activate_pair(model, "night")
    assert pair_names(model) == ("night", ["default", "night"])
    torch.testing.assert_close(model(x), plain(x), atol=1e-5, rtol=0)
    # Equal to a model that was adapted like this at first; the random A of kaiming is new.
    if second.get("init") != "kaiming":
        fresh = build(**second)[1].state_dict()
        assert all(torch.equal(model.state_dict()[key], value) for key, value in fresh.items())
    learn(model)
    night = model(x).detach()
    with active(model, main=False, sub=False):
        assert torch.equal(model(x), plain(x))
    for _ in range(3):
        activate_pair(model, "default")
        assert torch.equal(model(x), before)
        assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
        activate_pair(model, "night")
        assert torch.equal(model(x), night)


def test_inactive_pairs_frozen_same_parameters():
    _, model = build()
    model[0].lora_A_sub.requires_grad_(False)
    default = adapter_parameters(model).main["0.lora_A_main"]
    add_pair(model, "night", r_main=2, r_sub=2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    activate_pair(model, "night")
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained
    assert not default.requires_grad and default is not model[0].lora_A_main
    activate_pair(model, "default")
    assert default is model[0].lora_A_main and default.requires_grad


def test_inactive_pairs_kept_by_copy_state_and_cast():
    _, model = build()
    x = torch.randn(4, 12)
    add_pair(model, "night", r_main=2, r_sub=4, alpha=2.0, init="svd")
    activate_pair(model, "night")
    learn(model)
    night = model(x).detach()
    activate_pair(model, "default")
    copied = copy.deepcopy(model)
    activate_pair(copied, "night")
    assert torch.equal(copied(x), night)

    _, other = build(r_main=3, r_sub=2)
    add_pair(other, "night", r_main=2, r_sub=4, init="svd")  # the state dict sets alpha
    other.load_state_dict(model.state_dict())
    activate_pair(other, "night")
    assert torch.equal(other(x), night)

    model.double()
    activate_pair(model, "night")
    torch.testing.assert_close(model(x.double()), night.double(), atol=1e-5, rtol=0)


def test_activate_pair_while_merged_stays_merged():
    _, model = build()
    learn(model)
    add_pair(model, "night", r_main=2, r_sub=1)
    x = torch.randn(4, 12)
    with torch.no_grad():
        default = model(x)
        merge(model)
        activate_pair(model, "night")
        assert model[0].merged_weight is not None
        night = model(x)
        unmerge(model)
        torch.testing.assert_close(model(x), night, atol=1e-5, rtol=0)
        activate_pair(model, "default")
        assert torch.equal(model(x), default)


def test_pairs_invalid_arguments_raise():
    plain, model = build()
    with pytest.raises(ValueError, match="call adapt"):
        add_pair(plain, "night")
    with pytest.raises(ValueError, match="no adapter pair 'dusk'; the pairs are: default"):
        activate_pair(model, "dusk")
    with pytest.raises(ValueError, match="'default' exists already"):
        add_pair(model, "default", r_main=1, r_sub=1)
    for name in ("a.b", "", "keys", 3):
        with pytest.raises(ValueError, match="plain word"):
            add_pair(model, name, r_main=1, r_sub=1)
    with pytest.raises(ValueError, match="= 12 of layer '0'"):
        add_pair(model, "night", r_main=12, r_sub=1)
    assert pair_names(model) == ("default", ["default"])
