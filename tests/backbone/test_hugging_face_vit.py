"""Models of transformers as backbones: equal maps, trainable adapters, and weights."""

import sys

import pytest
import torch

from recyclelora import adapt
from recyclelora.backbone import hugging_face_vit, load_weights

from ..support.adapted_backbone import assert_adapts

SIZE = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 64}
SIZE |= {"patch_size": 16, "intermediate_size": 96}
TEXT = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "vocab_size": 99}
# name -> configuration, and the name of the blocks
MODELS = {
    "DINOv3ViT": ({"num_register_tokens": 4}, "model.layer"),
    "Dinov2": ({}, "encoder.layer"),
    "SiglipVision": ({}, "encoder.layers"),
    "Siglip": (None, "encoder.layers"),
}


@pytest.fixture
def saved(tmp_path):
    """``saved("Dinov2")``: a folder with a tiny random model of this name."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install it")

    def save(name: str, **changes):
        settings = MODELS[name][0]
        if settings is None:
            settings = {"vision_config": SIZE, "text_config": TEXT | {"intermediate_size": 96}}
        else:
            settings = SIZE | settings | changes
        torch.manual_seed(1)
        model = getattr(transformers, f"{name}Model")(
            getattr(transformers, f"{name}Config")(**settings)
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2)
        model.save_pretrained(tmp_path / name)
        save.kernels = [
            p for n, p in model.named_parameters() if "patch_embed" in n and n.endswith("weight")
        ]
        return tmp_path / name

    return save


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_maps_are_block_outputs_and_adapters_get_gradients(saved, name):
    folder = saved(name)
    settings = {"img_size": 64, "out_indices": [0, 1, 2, 3]}
    backbone = load_weights(hugging_face_vit(folder, **settings), "pretrained").eval()
    (kernel,) = (p for p in backbone.parameters() if p.dim() == 4)
    assert any(torch.equal(kernel, their_kernel) for their_kernel in saved.kernels)
    images = torch.randn(2, 3, 64, 96)
    tokens: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda *call: tokens.append(call[2]))
        for block in backbone.vit.get_submodule(MODELS[name][1])
    ]
    with torch.no_grad():
        before = backbone(images)
    for hook in hooks:
        hook.remove()
    third = tokens[2][0] if isinstance(tokens[2], tuple) else tokens[2]
    third = third[:, -4 * 6 :].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(before["res4"], third)
    with torch.device("meta"):
        again = load_weights(hugging_face_vit(folder, **settings), "pretrained").eval()
    main, _ = assert_adapts(backbone, again, before, images)
    assert len(main) == 2 * 6 * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DINOv3ViT", "SiglipVision"])
def test_later_blocks_are_removed_and_checkpointing_is_exact(saved, name):
    folder, images = saved(name), torch.randn(1, 3, 64, 64)

    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        settings = {"out_indices": [0, 0, 1, 2], "checkpointing": checkpointing}
        vit = load_weights(hugging_face_vit(folder, img_size=64, **settings), "pretrained").train()
        assert len(vit.vit.get_submodule(MODELS[name][1])) == 3
        calls = []
        # Inside the block, because transformers does not recompute the hooks of the block itself.
        layers = vit.vit.get_submodule(MODELS[name][1])[0].modules()
        norm = next(layer for layer in layers if isinstance(layer, torch.nn.LayerNorm))
        norm.register_forward_pre_hook(lambda *_: calls.append(1))
        adapted = adapt(vit, r_main=4, r_sub=2)
        torch.manual_seed(2)  # DINOv3 of transformers rescales its positions at random
        sum(level.square().sum() for level in adapted(images).values()).backward()
        assert len(calls) == 1 + checkpointing
        return {n: p.grad for n, p in adapted.named_parameters() if p.requires_grad}

    kept, recomputed = gradients(False), gradients(True)
    assert len(kept) == 4 * 6 * 3 and all(torch.equal(kept[n], recomputed[n]) for n in kept)


@pytest.mark.slow
def test_unsuitable_models_raise(saved, tmp_path):
    with pytest.raises(ValueError, match="its patches have 14 pixels, expected 16"):
        hugging_face_vit(saved("Dinov2", patch_size=14), img_size=64, out_indices=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"cannot build the vision model of .*nowhere"):
        hugging_face_vit(tmp_path / "nowhere")
    backbone = hugging_face_vit(saved("Dinov2"), img_size=64, out_indices=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"transformers cannot load the weights of .*nowhere"):
        load_weights(backbone, tmp_path / "nowhere")


def test_missing_transformers_raises_with_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="not installed: pip install transformers"):
        hugging_face_vit("some/vit")
