"""The table of the layers of an adapted model."""

import pytest
import torch
from torch import nn

import recyclelora
from recyclelora import adapt


def test_adapter_table_lists_layers_and_what_trains():
    model = nn.ModuleDict(
        {"a": nn.Linear(16, 24), "b": nn.Linear(24, 16), "head": nn.Linear(16, 3)}
    )
    adapt(model, 4, 2, exclude="head", ranks={"b": (0, 5)})
    model["a"].lora_A_main.requires_grad_(False)
    model["a"].lora_B_main.requires_grad_(False)
    model["b"].bias.requires_grad_(True)
    model["head"].requires_grad_(True)
    table = recyclelora.adapter_table(model)
    assert [(row.name, row.shape, row.r_main, row.r_sub) for row in table.rows] == [
        ("a", (24, 16), 4, 2),
        ("b", (16, 24), 0, 5),
    ]
    assert [row.trains for row in table.rows] == [("sub",), ("sub", "bias")]
    assert [row.parameters for row in table.rows] == [6 * 40, 5 * 40]
    assert table.trainable == 2 * 40 + 5 * 40 + 16 + 51
    assert table.total == sum(p.numel() for p in model.parameters())
    assert table.others == ("head.weight", "head.bias") and table.pair == "default"
    lines = str(table).splitlines()
    assert len(lines) == 5 and lines[2].split()[4:] == ["0", "5", "200", "sub,", "bias"]
    assert "head.weight, head.bias" in lines[4]


def test_adapter_table_same_names_when_wrapped():
    model = adapt(nn.Sequential(nn.Linear(16, 16)), 4, 2)
    wrapped = recyclelora.adapter_table(torch.compile(model, backend="eager"))
    assert wrapped.rows == recyclelora.adapter_table(model).rows


def test_adapter_table_without_adapters_raises():
    with pytest.raises(ValueError, match="call adapt"):
        recyclelora.adapter_table(nn.Linear(4, 4))
    with pytest.raises(TypeError, match=r"nn\.Module"):
        recyclelora.adapter_table([])
