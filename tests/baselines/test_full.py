"""Full fine-tuning trains exactly the parameters that receive a gradient."""

import pytest
import torch
from torch import nn

from recyclelora.backbone import DinoVisionTransformer
from recyclelora.baselines import fine_tune


def vit(**settings):
    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 5, "num_heads": 2}
    return DinoVisionTransformer(**sizes | {"out_indices": [0, 1, 2, 3]} | settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_register_tokens": 3, "ffn_layer": "swiglu"}, {"checkpointing": True}],
)
def test_fine_tune_trains_what_has_a_gradient(settings):
    module = vit(**settings)
    before = {name: p.clone() for name, p in module.named_parameters()}
    assert fine_tune(module) is module
    sum(f.square().sum() for f in module(torch.randn(1, 3, 64, 96)).values()).backward()
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad == (parameter.grad is not None), name
    frozen = {name.split(".")[0] for name, p in module.named_parameters() if not p.requires_grad}
    assert frozen == {"mask_token", "norm", "blocks"}
    # The features do not use the last block.
    assert not any(p.requires_grad for p in module.blocks[4].parameters())
    assert all(p.requires_grad for p in module.blocks[:4].parameters())


def test_fine_tune_on_meta_device_trains_the_same():
    with torch.device("meta"):
        shapes = fine_tune(vit())
    trains = {name: p.requires_grad for name, p in fine_tune(vit()).named_parameters()}
    assert {name: p.requires_grad for name, p in shapes.named_parameters()} == trains


def test_fine_tune_frozen_trains_and_empty_raises():
    module = fine_tune(vit().requires_grad_(False))
    assert module.cls_token.requires_grad and module.blocks[0].attn.qkv.weight.requires_grad
    with pytest.raises(ValueError, match="depends on no parameter"):
        fine_tune(nn.AvgPool2d(4))
