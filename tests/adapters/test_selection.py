"""Weights that the warning of adapt() names, and the advice in its error on small layers."""

import copy
import warnings

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import adapted_layers


class OneWeight(nn.Module):
    """A module without linear layers that has one parameter with the given name."""

    def __init__(self, key, *shape):
        super().__init__()
        self.register_parameter(key, nn.Parameter(torch.randn(*shape)))


class CosineNormLinear(OneWeight):
    """A linear layer whose class name contains the name of a norm."""


class ChannelNorm2d(OneWeight):
    """A norm of another library."""


@pytest.mark.parametrize(
    ("module", "is_named"),
    [
        (OneWeight("stable_token_mixing", 32, 32), True),
        (OneWeight("unembed", 32, 64), True),
        (OneWeight("experts", 4, 32, 32), True),
        (CosineNormLinear("kernel", 32, 32), True),
        (OneWeight("position_embedding", 32, 32), False),
        (OneWeight("relative_position_bias_table", 169, 24), False),
        (OneWeight("rel_pos_h", 32, 32), False),
        (OneWeight("positions", 1, 32, 32), False),
        (OneWeight("kernel", 32, 8), False),
        (OneWeight("kernel", 32, 32, 3, 3), False),
        (ChannelNorm2d("weight", 32, 32), False),
        (nn.RMSNorm((32, 32)), False),
        (nn.utils.parametrizations.weight_norm(nn.Conv1d(32, 32, 32)), False),
        (nn.GRU(32, 32), True),
    ],
)
def test_adapt_names_matrices_but_no_tables(module, is_named):
    model = nn.Sequential(nn.Linear(16, 16), module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapt(model, 4, 2)
    assert [("cannot reach" in str(one.message)) for one in caught] == [True] * is_named


@pytest.mark.parametrize("option", ["include", "exclude", "ranks"])
def test_adapt_pattern_without_match_raises(option):
    model = nn.Sequential(nn.Linear(16, 16))
    with pytest.raises(ValueError, match=r"pattern 'haed' .*matches no module"):
        adapt(model, 4, 2, **{option: {"haed": (2, 0)} if option == "ranks" else ["0", "haed"]})
    assert type(model[0]) is nn.Linear


def test_adapt_exclude_matches_parameters_and_shared_names():
    model = nn.ModuleDict({"a": nn.Linear(16, 16), "own": OneWeight("kernel", 32, 32)})
    model["b"] = model["a"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapt(model, 4, 2, exclude=["own.kernel"])
        adapt(nn.ModuleDict({"a": nn.Linear(16, 16), "b": nn.Linear(2, 2)}), 4, 2, exclude="b*")


def test_adapt_small_layers_error_shows_exclude():
    block = nn.ModuleDict({"fc": nn.Linear(16, 16), "0": nn.Linear(2, 16), "1": nn.Linear(16, 16)})
    model = nn.ModuleDict({"blocks": nn.ModuleList([block, copy.deepcopy(block)])})
    model["head"] = nn.Linear(16, 3)
    with pytest.raises(ValueError, match=r"exclude=\['blocks.\*.0', 'head'\]$"):
        adapt(model, 4, 2)
    adapt(model, 4, 2, exclude=["blocks.*.0", "head"])
    names = [f"blocks.{i}.{name}" for i in range(2) for name in ("fc", "1")]
    assert [*adapted_layers(model)] == names


def test_adapt_small_layer_among_numbered_shows_full_name():
    model = nn.ModuleList([nn.Sequential(nn.Linear(16, 16)), nn.Sequential(nn.Linear(16, 2))])
    with pytest.raises(ValueError, match=r"exclude=\['1.0'\]$"):
        adapt(model, 4, 2)
