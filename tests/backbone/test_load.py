"""Tensors that the loader resamples and reports, and errors for files that do not fit."""

import logging
import os
import re

import pytest
import torch

from recyclelora.backbone import (
    DinoVisionTransformer,
    load_weights,
    resample_patch_kernel,
    resample_position_embedding,
)


def test_load_weights_none_or_meta_reads_nothing(tiny, features):
    model = tiny()
    before = features(model)
    assert torch.equal(features(load_weights(model, None)), before)
    with torch.device("meta"):
        on_meta = load_weights(DinoVisionTransformer(), "dinov2_vitl14")
    assert on_meta.cls_token.is_meta


def test_load_weights_logs_one_line(tiny, tmp_path, save, caplog):
    state = {"head.weight": torch.zeros(2, 2)}
    state |= {f"backbone.{n}": t for n, t in tiny().state_dict().items() if n != "mask_token"}
    path = save(state, tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO, "recyclelora"):
        load_weights(tiny(patch_size=16, img_size=(96, 128)), path)
    (record,) = caplog.records
    for part in ("patch 14 -> 16", "positions 4x4 -> 6x8", "mask_token", "head.weight", str(path)):
        assert part in record.getMessage()


def test_resampling_agrees_with_published(golden):
    part = golden("dinov2_small.pt")["conversion"]
    given, wanted = part["input"], part["output_16_512x512"]
    name = "patch_embed.proj.weight"
    torch.testing.assert_close(
        resample_patch_kernel(given[name], 16), wanted[name], atol=1e-6, rtol=0
    )
    for target, positions in [
        ((32, 32), wanted["pos_embed"]),
        ((20, 28), part["pos_embed_for_320x448_kernel16"]),
    ]:
        ours = resample_position_embedding(given["pos_embed"], (37, 37), target)
        torch.testing.assert_close(ours, positions, atol=1e-6, rtol=0)


@pytest.mark.parametrize("img_size", [512, (320, 448)])
def test_load_weights_resamples_as_published(golden, tiny, tmp_path, save, img_size):
    """The loader computes the same weights as Rein's conversion script."""
    part = golden("dinov2_small.pt")["conversion"]
    size = {"embed_dim": 48, "num_heads": 3}
    state = tiny(patch_size=14, img_size=518, **size).state_dict() | part["input"]
    model = tiny(patch_size=16, img_size=img_size, **size)
    load_weights(model, save(state, tmp_path / "dinov2.pth"))
    wanted = part["output_16_512x512"]
    if img_size != 512:
        wanted = wanted | {"pos_embed": part["pos_embed_for_320x448_kernel16"]}
    for name, tensor in wanted.items():
        torch.testing.assert_close(model.state_dict()[name], tensor, atol=1e-6, rtol=0)


def without(state: dict, name: str) -> dict:
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda s: without(s, "blocks.2.attn.proj.bias"), r"missing: blocks\.2\.attn\.proj\.bias;"),
        (lambda s: s | {"reins.scale": torch.ones(1)}, r"unexpected: reins\.scale"),
        (lambda s: s | {"norm.weight": torch.ones(25)}, r"wrong shape: norm\.weight \(25,\) for"),
        (lambda s: s | {"norm.bias": torch.full((24,), torch.nan)}, r"not finite: norm\.bias"),
        (lambda s: s | {"pos_embed": torch.ones(1, 8, 24)}, "7 positions are not a square grid"),
        (lambda s: {"conv1.weight": torch.ones(64, 3, 7, 7)}, "none among 1 names such as conv1"),
        (lambda s: {f"{k}.{n}": t for k in "ab" for n, t in s.items()}, "one ViT.*got a.*b"),
        (lambda s: {"epoch": 3} | s, r"named tensors \(epoch\)"),
        (lambda s: {0: torch.ones(1)}, r"named tensors \(0\)"),
        (lambda s: [1, 2], "contains a list, expected a state dict"),
        (lambda s: {}, "contains no tensors"),
        (lambda s: {"model": torch.nn.Linear(1, 1)}, "contains Python objects, .* could run code"),
    ],
)
def test_mismatched_checkpoint_raises_and_changes_nothing(
    tiny, tmp_path, features, save, spoil, sentence
):
    model = tiny()
    before = features(model)
    path = save(spoil(tiny().state_dict()), tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=sentence) as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert torch.equal(features(model), before)


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ({"embed_dim": 48}, {}, r"wrong shape: cls_token \(1, 1, 48\) for \(1, 1, 24\)"),
        ({"depth": 5}, {}, r"unexpected: blocks\.4\.norm1\.weight.* and 8 more"),
        ({"num_register_tokens": 4}, {}, "unexpected: register_tokens"),
        ({}, {"num_register_tokens": 4}, "missing: register_tokens"),
        ({}, {"ffn_layer": "swiglu"}, "missing: blocks.0.mlp.w12.weight"),
        ({}, {"img_size": (28, 112)}, "may be a grid of 4x4 or 2x8"),
    ],
)
def test_checkpoint_of_another_model_raises(tiny, tmp_path, save, source, target, sentence):
    path = save(tiny(**source).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=sentence):
        load_weights(tiny(**target), path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "is a Git LFS pointer"),
        (b"", r"\(0 bytes\) is neither a PyTorch"),
        (b"\xff\xd8\xff\xe0 a photograph", "is neither a PyTorch, a safetensors nor an ONNX"),
        (b"\x80", "damaged, truncated"),
        (b"PK\x03\x04 some other archive", "damaged, truncated"),
        (b"\x08\x07\x12\xff\xff", "not an ONNX file, or is damaged"),
    ],
)
def test_file_of_another_kind_raises(tiny, tmp_path, content, sentence):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        load_weights(tiny(), path)


@pytest.mark.parametrize("file", ["cut.pth", "cut.safetensors"])
def test_truncated_file_raises(tiny, tmp_path, save, file):
    path = save(tiny().state_dict(), tmp_path / file)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged") as caught:
        load_weights(tiny(), path)
    assert str(path) in str(caught.value)


def test_file_that_runs_code_raises(tiny, tmp_path, save):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    path = tmp_path / "evil.pth"
    torch.save({"cls_token": Evil()}, path)
    with pytest.raises(ValueError, match="could run code"):
        load_weights(tiny(), path)
    assert not (tmp_path / "was_run").exists()


def test_folder_or_missing_file_raises(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file"):
        load_weights(tiny(), tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.pth"))):
        load_weights(tiny(), tmp_path / "none.pth")
