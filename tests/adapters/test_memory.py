"""Tensors that autograd saves for the backward pass of an adapted layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from recyclelora import DualLoRALinear

RANKS = R_MAIN, R_SUB = 8, 1
ROWS, WIDTH = 50, 256  # a quarter of DINOv2-L's width of 1024
BLOCK = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]


def published(layer, x):
    """The published layer, with one branch for each adapter."""
    main = F.linear(F.linear(x, layer.lora_A_main), layer.lora_B_main)
    sub = F.linear(F.linear(x, layer.lora_A_sub), layer.lora_B_sub)
    return F.linear(x, layer.residual, layer.bias) + layer.scaling * main + layer.scaling * sub


def saved_bytes(function, layer, x):
    """Return the bytes that autograd saves, without parameters and buffers, each storage once."""
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(x)
    assert out.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("autocast", [False, True])
def test_saved_bytes_of_block_match_formula(autocast):
    itemsize = 2 if autocast else 4
    sparse_bytes = published_bytes = 0
    for inn, out in BLOCK:
        linear, x = nn.Linear(inn, out), torch.randn(2, ROWS // 2, inn, requires_grad=True)
        sparse = DualLoRALinear.from_linear(linear, *RANKS, sparse_a=True)
        dense = DualLoRALinear.from_linear(linear, *RANKS)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            of_sparse = saved_bytes(sparse, sparse, x)
            of_dense = saved_bytes(dense, dense, x)
            published_bytes += saved_bytes(lambda x, layer=dense: published(layer, x), dense, x)
        assert of_sparse == ROWS * sum(RANKS) * itemsize
        assert of_dense == ROWS * (inn + sum(RANKS)) * itemsize
        sparse_bytes += of_sparse
    assert sparse_bytes < 0.025 * published_bytes
