"""The published optimiser: multipliers by the longest matching name (golden/schedules.npz)."""

import numpy as np
import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.engine.param_groups import (
    PUBLISHED_RULES,
    groups_table,
    parameter_groups,
)

# The golden names are those of the published code, in which two embeddings have other names.
PUBLISHED_NAMES = {key.removeprefix("predictor."): rule for key, rule in PUBLISHED_RULES.items()}


def tree(names: list[str]) -> nn.Module:
    """Return a module whose trainable parameters have exactly these names."""
    root = nn.Module()
    for name in names:
        *path, leaf = name.split(".")
        node = root
        for depth, part in enumerate(path):
            if part not in node._modules:
                last = depth == len(path) - 1
                node.add_module(part, nn.GroupNorm(1, 1) if last and part == "gn" else nn.Module())
            node = node._modules[part]
        node.register_parameter(leaf, nn.Parameter(torch.zeros(1)))
    return root


def test_parameter_groups_match_golden(golden):
    reference = golden("schedules.npz")
    names = [str(name) for name in reference["group_names"]]
    model = tree(names)
    groups = parameter_groups(model=model, lr=1e-4, weight_decay=0.05, rules=PUBLISHED_NAMES)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    expected = zip(reference["initial_lr"], reference["initial_weight_decay"], strict=True)
    for (name, parameter), values in zip(model.named_parameters(), expected, strict=True):
        assert found[id(parameter)] == pytest.approx(values, abs=1e-12), name


def test_parameter_groups_skip_frozen_and_duplicates():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "a": nn.Linear(2, 2)})
    model["b"] = model["a"]
    model["backbone"].requires_grad_(False)
    groups = parameter_groups(model=model, lr=1.0, weight_decay=0.0)
    assert sum(p.numel() for g in groups for p in g["params"]) == 6


def test_parameter_groups_skip_rank_0_adapters():
    model = adapt(nn.Sequential(nn.Linear(8, 8)), r_main=2, r_sub=0)
    groups = parameter_groups(model=model, lr=1e-4, weight_decay=0.05)
    assert [group["name"] for group in groups] == ["main adapter"]
    assert sum(p.numel() for p in groups[0]["params"]) == 2 * (8 + 8)


def test_groups_table_lists_every_group():
    model = tree(["backbone.blocks.0.lora_A_main", "backbone.blocks.0.lora_B_sub", "head.weight"])
    groups = parameter_groups(model=model, lr=1e-4, weight_decay=0.05)
    table = groups_table(torch.optim.AdamW(groups))
    for word in ("main adapter", "sub adapter", "head", "0.0001", "5e-05", "all"):
        assert word in table
    assert np.isclose(sum(g["lr"] for g in groups), 2.5e-4)


def test_parameter_groups_invalid_input_raises():
    with pytest.raises(ValueError, match="lr_mult and decay_mult"):
        parameter_groups(model=nn.Linear(1, 1), lr=1, weight_decay=0, rules={"x": {"lr": 1}})
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(model=nn.Linear(1, 1).requires_grad_(False), lr=1, weight_decay=0)
