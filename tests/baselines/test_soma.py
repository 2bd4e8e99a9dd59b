"""SoMA trains the smallest singular components of the later blocks, and nothing else."""

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import adapted_layers, merged
from recyclelora.baselines import SplitProjection, soma
from recyclelora.common.digests import tensor_digest
from recyclelora.engine.trained import pretrained_weights

IMAGES = torch.randn(2, 3, 64, 96)


def maps(features):
    return torch.cat([f.flatten() for f in features.values()])


def test_soma_keeps_the_output_and_trains_later_blocks(vit):
    module = vit()
    before = maps(module(IMAGES)).detach()
    assert soma(module, rank=3, first_block=2) is module
    torch.testing.assert_close(maps(module(IMAGES)), before, atol=1e-5, rtol=0)
    for name, parameter in module.named_parameters():
        layer = name.rpartition(".")[0]
        in_linear = layer in adapted_layers(module)
        assert not (name.endswith("lora_A_main") and parameter.shape[0] != 3)
        trains = in_linear and ("lora_" in name or name.endswith("bias"))
        assert parameter.requires_grad == trains, name
    assert {name.split(".")[1] for name in adapted_layers(module)} == {"2", "3"}
    assert not any(isinstance(m, nn.Linear) for m in module.blocks[2:].modules())


def test_soma_adapters_are_smallest_singular_parts(vit):
    whole, module = vit(), vit()
    module.load_state_dict(whole.state_dict())
    soma(module, rank=3, first_block=3)
    for name, layer in adapted_layers(module).items():
        *path, part = name.split(".")
        if path[-1] == "qkv":
            weight = whole.get_submodule(".".join(path)).weight.chunk(3)["qkv".index(part)]
        else:
            weight = whole.get_submodule(name).weight
        u, s, vt = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        smallest = u[:, -3:] * s[-3:] @ vt[-3:]
        product = (layer.lora_B_main @ layer.lora_A_main).double()  # the scaling is 1
        torch.testing.assert_close(product, smallest, atol=1e-6, rtol=0)
        torch.testing.assert_close(layer.residual.double(), weight - smallest, atol=1e-6, rtol=0)
        norms = layer.lora_A_main.double().square().sum(1), layer.lora_B_main.square().sum(0)
        for norm in norms:  # both factors contain sqrt(S)
            torch.testing.assert_close(norm.double(), s[-3:], atol=1e-5, rtol=1e-3)


def test_soma_merges_and_keeps_the_tensor_digest(vit):
    module = vit()
    digest = tensor_digest(pretrained_weights(module.requires_grad_(False)))
    soma(module, rank=2, first_block=1)
    assert tensor_digest(pretrained_weights(module)) == digest
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
        plain = maps(module(IMAGES))
        with merged(module):
            torch.testing.assert_close(maps(module(IMAGES)), plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_split_projection_agrees_with_the_fused(bias):
    fused, x = nn.Linear(6, 18, bias=bias), torch.randn(2, 5, 6)
    torch.testing.assert_close(SplitProjection(fused)(x), fused(x))


def test_soma_invalid_arguments_raise_and_change_nothing(vit):
    module = vit()
    keys = module.state_dict().keys()
    for settings, words in (
        ({"rank": 33}, "rank must be a whole number from 1 to 32"),
        ({"rank": 2, "first_block": 4}, "first_block must be a whole number from 0 to 3"),
    ):
        with pytest.raises(ValueError, match=words):
            soma(module, **settings)
    assert module.state_dict().keys() == keys
    with pytest.raises(ValueError, match="adapted already"):
        soma(adapt(module, r_main=2, r_sub=1), rank=2, first_block=1)
