"""Models of timm as backbones: equal maps, trainable adapters, and weights from files."""

import copy
import sys

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import unreached_linears
from recyclelora.backbone import load_weights, timm_vit
from recyclelora.backbone.any_vit import AnyViT

from ..support.adapted_backbone import assert_adapts

SIZE = {"embed_dim": 48, "depth": 4, "num_heads": 3}
# Rotary positions and registers; positions alone; windows and relative positions; a fused qkv with
# separate biases (EVA, BEiT); rotary positions, q, k and v apart; cls and registers; pre-norm CLIP.
MODELS = [
    "vit_small_patch16_dinov3",
    "vit_small_patch16_dinov3_qkvb",
    "vit_base_patch16_siglip_224",
    "samvit_base_patch16",
    "beit_base_patch16_224",
    "eva02_large_patch14_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_clip_224",
]


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="needs timm: pip install 'recyclelora[timm]'")


def tiny(name: str, **overrides) -> AnyViT:
    settings = {"img_size": 64, "out_indices": [0, 1, 2, 3], **SIZE}
    backbone = timm_vit(name, **{**settings, **overrides})
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.2)
    return backbone.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_adapters_keep_the_output_and_get_gradients(timm, name):
    backbone, images = tiny(name), torch.randn(1, 3, 64, 64)
    before = {level: feature.detach() for level, feature in backbone(images).items()}
    linears = sum(isinstance(m, nn.Linear) for m in backbone.modules())
    assert linears >= 4 * 4
    with torch.device("meta"):
        again = timm_vit(name, img_size=64, out_indices=[0, 1, 2, 3], **SIZE).eval()
    main, sub = assert_adapts(backbone, again, before, images)
    assert len(main) == len(sub) == 2 * linears


@pytest.mark.slow
@torch.no_grad()
def test_maps_are_block_outputs_without_prefix_tokens(timm):
    backbone, images = tiny("vit_small_patch16_dinov3"), torch.randn(2, 3, 64, 96)
    tokens: list[torch.Tensor] = []
    for block in backbone.vit.blocks:
        block.register_forward_hook(lambda *call: tokens.append(call[2]))
    levels = backbone(images)
    assert tokens[2].shape == (2, 1 + 4 + 4 * 6, 48)
    third = tokens[2][:, 5:].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(levels["res4"], third)


@pytest.mark.slow
def test_file_is_loaded_and_resampled_by_timm(timm, tmp_path):
    """Load patch 14 at 56 pixels with a classifier into patch 16 at 64 pixels without one."""
    name = "vit_small_patch14_dinov2"
    theirs = timm.create_model(name, img_size=56, **SIZE)
    torch.save({"model": theirs.state_dict()}, tmp_path / "theirs.pth")
    backbone = timm_vit(name, img_size=64, out_indices=[0, 1, 2, 3], **SIZE)
    load_weights(backbone, tmp_path / "theirs.pth")
    own, given = backbone.vit.state_dict(), theirs.state_dict()
    assert own["patch_embed.proj.weight"].shape[-1] == 16
    same = [name for name in own if name.startswith("blocks.")]
    assert len(same) > 40 and all(torch.equal(own[name], given[name]) for name in same)
    assert not getattr(backbone.vit, "pretrained_cfg", {}).get("state_dict")
    before = copy.deepcopy(backbone.state_dict())
    torch.save({"patch_embed.proj.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="timm cannot load weights into 'vit_small_patch14"):
        load_weights(backbone, tmp_path / "wrong.pth")
    assert all(map(torch.equal, backbone.state_dict().values(), before.values()))


@pytest.mark.slow
def test_later_blocks_are_removed_and_checkpointing_is_exact(timm):
    backbone = tiny("vit_small_patch16_dinov3", out_indices=[0, 0, 1, 2])
    assert len(backbone.vit.blocks) == 3
    assert all(p.requires_grad for p in backbone.parameters())
    images = torch.randn(1, 3, 64, 64)

    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        backbone.vit.set_grad_checkpointing(checkpointing)
        backbone.zero_grad()
        sum(level.square().sum() for level in backbone(images).values()).backward()
        return {name: parameter.grad.clone() for name, parameter in backbone.named_parameters()}

    kept, recomputed = gradients(False), gradients(True)
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)
    assert timm_vit("vit_small_patch16_dinov3", checkpointing=True, **SIZE).vit.grad_checkpointing


@pytest.mark.slow
def test_unreached_linears_with_read_qkv_weight_is_empty(timm):
    """BEiT's attention reads ``qkv.weight``, which is the effective weight of an adapted layer."""
    theirs = timm.create_model("beit_base_patch16_224", num_classes=0, img_size=64, **SIZE)
    assert unreached_linears(theirs, torch.zeros(1, 3, 64, 64)) == []
    adapt(theirs, r_main=2, r_sub=1)
    theirs(torch.randn(1, 3, 64, 64)).square().sum().backward()
    for number in range(4):
        assert theirs.blocks[number].attn.qkv.lora_B_main.grad.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("vit_smal_patch16_dinov3", {}, "name of a model in timm.* did you mean vit_small_patch16"),
        ("resnet18", {}, "timm cannot build 'resnet18'"),
        ("swin_tiny_patch4_window7_224", {}, "expected a plain vision transformer|cannot build"),
        ("vit_small_patch16_dinov3", {"out_indices": [0, 1, 2, 99]}, "blocks between 0 and 11"),
        ("vit_small_patch16_dinov3", {"width": 3}, "unexpected keyword argument 'width'"),
        (3, {}, "expected the name of a model in timm, got 3"),
    ],
)
def test_unsuitable_models_raise(timm, name, options, sentence):
    with pytest.raises(ValueError, match=sentence), torch.device("meta"):
        timm_vit(name, **options)


def test_missing_timm_raises_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'recyclelora\[timm\]'"):
        timm_vit("vit_small_patch16_dinov3")
