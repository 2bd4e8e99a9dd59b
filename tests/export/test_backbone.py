import json
import sys

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import merge
from recyclelora.backbone import DinoVisionTransformer, load_weights
from recyclelora.baselines import dora, soma
from recyclelora.export import export_backbone

from ..support.outside_models import relative_difference
from ..support.trained_adapters import learn

TINY = {"img_size": 64, "patch_size": 16, "embed_dim": 24, "depth": 4, "num_heads": 2}
VARIANTS = {
    "mlp": {},
    "registers": {
        "num_register_tokens": 3,
        "interpolate_antialias": True,
        "interpolate_offset": 0.0,
    },
    "swiglu": {"ffn_layer": "swiglu"},
    "bare": {"init_values": None, "qkv_bias": False, "proj_bias": False, "ffn_bias": False},
    "narrow": {"mlp_ratio": 2.0, "patch_size": 8},
}


def tiny(**settings):
    """A small DINOv2 with random numbers in every parameter."""
    model = DinoVisionTransformer(**TINY | settings)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.3)
    return model.eval()


def trained(**settings):
    model = adapt(tiny(**settings), r_main=4, r_sub=2)
    learn(model, scale=0.1)
    return model


@torch.no_grad()
def tokens(backbone, images):
    ((patches, cls),) = backbone.get_intermediate_layers(images, return_class_token=True)
    return torch.cat([cls[:, None], patches], dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_timm_loads_the_folder_and_computes_the_same(variant, tmp_path):
    timm = pytest.importorskip("timm")
    backbone, images = trained(**VARIANTS[variant]), torch.randn(2, 3, 64, 64)
    same, wider = export_backbone(backbone, tmp_path, layout="timm")
    assert same.image_size == (64, 64) and same.relative < 1e-5 and wider.image_size == (64, 96)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        found = model.forward_features(images)
    found = torch.cat([found[:, :1], found[:, model.num_prefix_tokens :]], dim=1)
    assert relative_difference(found, tokens(backbone, images)) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_loads_the_folder_and_computes_the_same(variant, tmp_path):
    transformers = pytest.importorskip("transformers")
    backbone, images = trained(**VARIANTS[variant]), torch.randn(2, 3, 64, 64)
    same, wider = export_backbone(backbone, tmp_path, layout="hugging_face")
    assert same.relative < 1e-5
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        found = model(images).last_hidden_state
    registers = VARIANTS[variant].get("num_register_tokens", 0)
    found = torch.cat([found[:, :1], found[:, 1 + registers :]], dim=1)
    assert relative_difference(found, tokens(backbone, images)) < 1e-5
    if "interpolate_offset" in VARIANTS[variant]:  # positions are resampled as here
        assert wider.relative < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_state_dict_has_the_official_keys(variant, tmp_path):
    backbone, images = trained(**VARIANTS[variant]), torch.randn(2, 3, 64, 96)
    differences = export_backbone(backbone, tmp_path, layout="dinov2")
    assert all(difference.relative < 1e-5 for difference in differences)
    args = json.loads((tmp_path / "config.json").read_text())["args"]
    state = torch.load(tmp_path / "backbone.pth", weights_only=True)
    assert state.keys() == tiny(**VARIANTS[variant]).state_dict().keys()
    again = load_weights(DinoVisionTransformer(**args), tmp_path / "backbone.pth").eval()
    assert relative_difference(tokens(again, images), tokens(backbone, images)) < 1e-5


@pytest.mark.parametrize("layout", ["timm", "hugging_face"])
@pytest.mark.parametrize("settings", [{"num_register_tokens": 2}, {"ffn_layer": "swiglu"}])
def test_written_file_is_read_back_to_the_same_weights(layout, settings, tmp_path):
    backbone, images = tiny(**settings), torch.randn(1, 3, 64, 64)
    export_backbone(backbone, tmp_path, layout=layout)
    again = load_weights(tiny(**settings), tmp_path / "model.safetensors")
    assert relative_difference(tokens(again, images), tokens(backbone, images)) < 1e-6


@pytest.mark.parametrize("ffn_layer", ["mlp", "swiglu"])
@pytest.mark.parametrize("ratio", [0.7, 1.0, 8 / 3, 5.3])
def test_any_width_of_the_feed_forward_is_found(ffn_layer, ratio, tmp_path):
    backbone = tiny(ffn_layer=ffn_layer, mlp_ratio=ratio, depth=1, out_indices=[0, 0, 0, 0])
    for layout in ("dinov2", "timm"):
        export_backbone(backbone, tmp_path / layout, layout=layout)


@pytest.mark.parametrize(
    "change", [merge, lambda m: m.bfloat16(), lambda m: m.train()], ids=["merged", "half", "train"]
)
def test_merged_half_and_training_backbones_are_exported(change, tmp_path):
    pytest.importorskip("timm")  # export_backbone compares the outputs
    backbone = trained()
    change(backbone)
    training, dtype = backbone.training, backbone.pos_embed.dtype
    same, _ = export_backbone(backbone, tmp_path, layout="timm")
    assert same.relative < (0.05 if dtype == torch.bfloat16 else 1e-5)
    assert backbone.training == training


def test_dora_is_merged(tmp_path):
    pytest.importorskip("timm")
    backbone = dora(tiny(), rank=3, alpha=3.0)
    for name, parameter in backbone.named_parameters():
        if name.endswith(("lora_B", "magnitude")):
            nn.init.normal_(parameter, std=0.1)
    assert export_backbone(backbone, tmp_path, layout="timm")[0].relative < 1e-5


def test_library_that_computes_something_else_writes_nothing(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    forward = timm.models.VisionTransformer.forward_features
    monkeypatch.setattr(
        timm.models.VisionTransformer, "forward_features", lambda self, x: 1.01 * forward(self, x)
    )
    with pytest.raises(ValueError, match=r"output of timm of .* differs from"):
        export_backbone(tiny(), tmp_path / "folder", layout="timm")
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match="timm cannot load what was written for it"):
        export_backbone(tiny(), tmp_path / "folder", layout="timm")
    assert not list(tmp_path.iterdir())


def test_folder_is_written_where_the_library_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert export_backbone(tiny(), tmp_path, layout="timm") is None
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def _not_finite():
    backbone = tiny()
    nn.init.constant_(backbone.norm.bias, float("inf"))
    return backbone


REFUSED = {
    "no backbone": (lambda: nn.Linear(2, 2), "timm", "expected a DinoVisionTransformer, got Lin"),
    "layout": (tiny, "jax", "layout must be one of dinov2, timm, hugging_face, got 'jax'"),
    "soma": (lambda: soma(tiny(), rank=2, first_block=0), "timm", "not a plain DINOv2"),
    "oblong": (lambda: tiny(img_size=(64, 32)), "hugging_face", "positions of a square image"),
    "ratio": (lambda: tiny(mlp_ratio=2.5), "hugging_face", "whole mlp_ratio"),
    "epsilon": (lambda: tiny(layer_norm_eps=1e-5), "timm", "layer_norm_eps=1e-6"),
    "not finite": (_not_finite, "timm", "NaN or Inf"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_layout_cannot_hold_is_refused(case, tmp_path):
    make, layout, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        export_backbone(make(), tmp_path / "folder", layout=layout)
    assert not list(tmp_path.iterdir())
