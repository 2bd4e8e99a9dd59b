"""Adapters of this package's DINOv2 in peft, on the DINOv2 of other libraries."""

import copy
import json

import pytest
import torch

from recyclelora import adapt
from recyclelora.backbone import DinoVisionTransformer
from recyclelora.export import export_backbone, save_peft

from ..support.outside_models import relative_difference
from ..support.trained_adapters import learn

peft = pytest.importorskip("peft")

TINY = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 2}


def load_outside(layout, folder):
    if layout == "timm":
        return pytest.importorskip("timm").create_model(f"local-dir:{folder}", pretrained=True)
    return pytest.importorskip("transformers").AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("layout", ["timm", "hugging_face"])
@pytest.mark.parametrize("settings", [{}, {"ffn_layer": "swiglu"}, {"num_register_tokens": 2}])
@pytest.mark.parametrize("ranks", [None, {"blocks.1.*": (3, 0)}], ids=["one_rank", "ranks"])
def test_peft_on_outside_dinov2_computes_the_same(layout, settings, ranks, tmp_path):
    base = DinoVisionTransformer(**TINY, **settings, out_indices=[0, 0, 1, 1])
    base.blocks[0].attn.qkv.weight.data.mul_(5)
    model = adapt(copy.deepcopy(base), r_main=5, r_sub=2, alpha=7.0, ranks=ranks).eval()
    learn(model, scale=0.05)
    export_backbone(base, tmp_path / "base", layout=layout)
    error = save_peft(model, tmp_path / "lora", layout=layout)
    outside = load_outside(layout, tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(outside, str(tmp_path / "lora")).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ((expected,),) = [model.get_intermediate_layers(images)]
        ((before,),) = [base.get_intermediate_layers(images)]
        if layout == "timm":
            found = loaded.base_model.model.forward_features(images)
        else:
            found = loaded(images).last_hidden_state
    assert error < 1e-9 and relative_difference(before, expected) > 1e-2
    assert relative_difference(found[:, -16:], expected) < 1e-5


def test_names_of_a_segmentor_are_refused(tmp_path):
    model = torch.nn.ModuleDict({"backbone": DinoVisionTransformer(**TINY)})
    adapt(model, r_main=2, r_sub=1)
    with pytest.raises(ValueError, match="give the backbone itself"):
        save_peft(model, tmp_path / "lora", layout="timm")
    with pytest.raises(ValueError, match="layout must be timm, hugging_face or None, got 'jax'"):
        save_peft(model["backbone"], tmp_path / "lora", layout="jax")
    assert not list(tmp_path.iterdir())
    save_peft(model, tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert "backbone.blocks.0.attn.qkv" in config["target_modules"]
