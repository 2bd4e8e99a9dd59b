"""Comparisons with transformers and timm, if they are installed."""

import pytest
import torch

from recyclelora.backbone import load_weights

# test_layouts.py checks the same layouts without these libraries.
NOT_INSTALLED = "compares with transformers and timm, which nothing else needs: pip install them"


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)


def assert_last_block_agrees(ours, images, theirs) -> None:
    """Compare with ``theirs``: normalised tokens in the order cls, registers, patches."""
    with torch.no_grad():
        ((patches, cls),) = ours.eval().get_intermediate_layers(images, return_class_token=True)
    torch.testing.assert_close(cls, theirs[:, 0], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(patches, theirs[:, -patches.shape[1] :], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("registers", [0, 4])
def test_last_block_agrees_with_transformers(tiny, tmp_path, registers, swiglu):
    transformers = pytest.importorskip("transformers", reason=NOT_INSTALLED)
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        use_swiglu_ffn=swiglu,
        **({"num_register_tokens": registers} if registers else {}),
    )
    theirs = getattr(transformers, f"{kind}Model")(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    # Since transformers 5, models in memory and in files have different names.
    torch.save(theirs.state_dict(), tmp_path / "memory.pth")
    ours, again = (
        tiny(
            num_register_tokens=registers,
            ffn_layer="swiglu" if swiglu else "mlp",
            interpolate_offset=0.0,
            interpolate_antialias=bool(registers),
        )
        for _ in range(2)
    )
    load_weights(ours, tmp_path / "model.safetensors")
    load_weights(again, tmp_path / "memory.pth")
    assert all(map(torch.equal, ours.state_dict().values(), again.state_dict().values()))
    for size in ((56, 56), (42, 84)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            tokens = theirs(images).last_hidden_state
        assert_last_block_agrees(ours, images, tokens)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("registers", [0, 4])
def test_last_block_agrees_with_timm(tiny, tmp_path, registers, swiglu):
    timm = pytest.importorskip("timm", reason=NOT_INSTALLED)
    hidden = {"mlp_ratio": 2.0}
    if swiglu:  # timm's ViT-G has twice our two thirds of the nominal width, 24 * 2 * 2 / 3
        layer = timm.layers.SwiGLUPacked
        hidden = {"mlp_ratio": 64 / 24, "mlp_layer": layer, "act_layer": torch.nn.SiLU}
    theirs = timm.models.VisionTransformer(
        img_size=56,
        patch_size=14,
        embed_dim=24,
        depth=4,
        num_heads=2,
        num_classes=0,
        init_values=0.5,
        reg_tokens=registers,
        no_embed_class=bool(registers),
        **hidden,
    ).eval()
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    ours = tiny(num_register_tokens=registers, ffn_layer="swiglu" if swiglu else "mlp")
    load_weights(ours, tmp_path / "timm.pth")
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        assert_last_block_agrees(ours, images, theirs.forward_features(images))
