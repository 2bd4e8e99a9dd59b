import pytest
import torch

from recyclelora import adapt
from recyclelora.backbone import DinoVisionTransformer
from recyclelora.baselines import Rein, dora, fine_tune, soma
from recyclelora.engine import load_trained, read_checkpoint, save_trained
from recyclelora.mask2former import build_segmentor

HEAD = {"hidden_dim": 32, "nheads": 2, "enc_layers": 1, "enc_dim_feedforward": 64}
HEAD |= {"dec_layers": 1, "dec_dim_feedforward": 64, "num_queries": 12}
IMAGES = torch.rand(2, 3, 64, 96) * 255


def base_weights(seed=0):
    torch.manual_seed(seed)
    return DinoVisionTransformer(
        img_size=64, patch_size=16, embed_dim=48, depth=4, num_heads=2
    ).state_dict()


def segmentor(base, seed, method=adapt, **settings):
    """Return an adapted segmentor on this base; the seed determines the head and LoRA's A."""
    backbone = DinoVisionTransformer(img_size=64, patch_size=16, embed_dim=48, depth=4, num_heads=2)
    backbone.load_state_dict(base)
    torch.manual_seed(seed)
    backbone = method(backbone, **settings)
    return build_segmentor(backbone, learned_queries=method is not Rein, **HEAD).eval()


@torch.no_grad()
def trained(model, size=0.05):
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += size * torch.randn_like(parameter)
    return model


ADAPTERS = {
    "RecycleLoRA": {"r_main": 6, "r_sub": 2},
    "sparse": {"r_main": 6, "r_sub": 2, "sparse_a": True},
    "main": {"r_main": 6, "r_sub": 0},
    "SVD": {"r_main": 6, "r_sub": 2, "init": "svd"},
    "LoRA": {"r_main": 8, "r_sub": 0, "init": "kaiming"},
    "frozen": {"r_main": 0, "r_sub": 0},
}


@pytest.mark.parametrize("adapters", ADAPTERS.values(), ids=ADAPTERS)
def test_load_trained_adapters_restores_predictions(adapters, tmp_path):
    model = trained(segmentor(base_weights(), 1, **adapters))
    save_trained(tmp_path / "new" / "t.pth", model=model, iteration=7)
    content = read_checkpoint(tmp_path / "new" / "t.pth")
    assert content["iteration"] == 7
    assert all(name.startswith("sem_seg_head") or "lora_" in name for name in content["trained"])
    again = segmentor(base_weights(), 2, **adapters)
    expected = model.semantic_logits(IMAGES)
    assert not torch.equal(again.semantic_logits(IMAGES), expected)
    load_trained(again, content, source="t.pth")
    assert torch.equal(again.semantic_logits(IMAGES), expected)
    assert all(p.requires_grad for n, p in again.named_parameters() if "lora_" in n)


BASELINES = {
    "DoRA": {"method": dora, "rank": 4, "alpha": 4.0},
    "SoMA": {"method": soma, "rank": 4, "first_block": 2},
    "Rein": {"method": Rein, "num_tokens": 12, "rank": 4, "query_dim": 32},
    "full fine-tuning": {"method": fine_tune},
}


@pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES)
def test_load_trained_baseline_restores_predictions(method, tmp_path):
    model = trained(segmentor(base_weights(), 1, **method), size=0.01)
    save_trained(tmp_path / "t.pth", model=model, iteration=7)
    content = read_checkpoint(tmp_path / "t.pth")
    again = segmentor(base_weights(), 2, **method)
    load_trained(again, content, source="t.pth")
    assert torch.equal(again.semantic_logits(IMAGES), model.semantic_logits(IMAGES))
    if method["method"] is not fine_tune:
        other = segmentor(base_weights(5), 2, **method)
        with pytest.raises(ValueError, match="other backbone weights"):
            load_trained(other, content, source="t.pth")


def test_save_trained_float16_halves_size(tmp_path):
    model = trained(segmentor(base_weights(), 1, r_main=6, r_sub=2))
    for name, dtype in (("full", None), ("half", torch.float16)):
        save_trained(tmp_path / name, model=model, iteration=7, dtype=dtype)
    full, half = ((tmp_path / name).stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    again = segmentor(base_weights(), 2, r_main=6, r_sub=2)
    load_trained(again, read_checkpoint(tmp_path / "half"), source="half")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    first, second = model.semantic_logits(IMAGES), again.semantic_logits(IMAGES)
    assert not torch.equal(first, second)
    assert (first.argmax(1) == second.argmax(1)).float().mean() > 0.99


@pytest.mark.parametrize(
    ("base", "adapters", "sentence"),
    [
        (base_weights(5), {"r_main": 6, "r_sub": 2}, "other backbone weights"),
        (base_weights(), {"r_main": 5, "r_sub": 2}, "belongs to another model: .*lora_A_main"),
        (base_weights(), {"r_main": 0, "r_sub": 0}, "belongs to another model: .*lora_A_main"),
    ],
)
def test_load_trained_other_model_raises_unchanged(base, adapters, sentence, tmp_path):
    model = trained(segmentor(base_weights(), 1, r_main=6, r_sub=2))
    save_trained(tmp_path / "t.pth", model=model, iteration=7)
    other = segmentor(base, 2, **adapters)
    before = {name: p.clone() for name, p in other.named_parameters()}
    with pytest.raises(ValueError, match=sentence):
        load_trained(other, read_checkpoint(tmp_path / "t.pth"), source="t.pth")
    assert all(torch.equal(before[name], p) for name, p in other.named_parameters())
