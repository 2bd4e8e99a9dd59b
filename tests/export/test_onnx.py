"""A segmentor in traceable operators, as a program of torch.export, and as an ONNX file."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recyclelora import Segmentor, adapt
from recyclelora.backbone import DinoVisionTransformer, Eva02VisionTransformer
from recyclelora.data import COLORS, read_image
from recyclelora.evaluation import native
from recyclelora.export.onnx_file import (
    LEAST_EQUAL,
    check_onnx,
    compare_onnx,
    export_program,
    save_onnx,
)
from recyclelora.export.traceable import TraceableSegmentor, gathered_deform_attn
from recyclelora.mask2former import build_segmentor
from recyclelora.mask2former.ms_deform_attn import ms_deform_attn

from ..support.small_segmentor import SMALL
from ..support.trained_adapters import learn

SIZES = {"img_size": 64, "patch_size": 16, "depth": 4, "embed_dim": 24, "num_heads": 2}
BACKBONES = {
    "dino": lambda: DinoVisionTransformer(**SIZES),
    "no_offset": lambda: DinoVisionTransformer(
        **SIZES, interpolate_offset=0.0, num_register_tokens=2
    ),
    "eva02": lambda: Eva02VisionTransformer(**SIZES),
}
SHAPES = [(1, 64, 64), (2, 100, 170), (1, 40, 33), (3, 33, 256)]


def segmentor(kind="dino"):
    torch.manual_seed(0)
    model = build_segmentor(adapt(BACKBONES[kind](), r_main=4, r_sub=2), **SMALL)
    learn(model, scale=0.1)
    return Segmentor.from_model(model, protocol=native(long_side=96), provenance={"iteration": 9})


def images(count, height, width):
    rng = np.random.default_rng(height)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, height, width)).astype(np.float32))


def test_gathered_attention_equals_grid_sample():
    torch.manual_seed(0)
    shapes = [(4, 6), (2, 3)]
    value = torch.randn(2, 30, 4, 5, dtype=torch.float64)
    where = torch.rand(2, 7, 4, 2, 3, 2, dtype=torch.float64) * 1.6 - 0.3  # also outside
    weights = torch.rand(2, 7, 4, 2, 3, dtype=torch.float64)
    expected = ms_deform_attn(value, shapes, where, weights)
    assert torch.allclose(gathered_deform_attn(value, shapes, where, weights), expected)


@pytest.mark.parametrize("kind", BACKBONES)
def test_traceable_model_has_the_scores_of_the_model(kind):
    found = segmentor(kind)
    traceable = TraceableSegmentor(found.model)
    for shape in SHAPES:
        batch = images(*shape)
        expected = found.model.semantic_logits(batch)
        with torch.no_grad():
            scores, classes = traceable(batch)
        assert torch.allclose(scores, expected, atol=1e-5) and scores.shape == expected.shape
        assert classes.dtype == torch.uint8 and torch.equal(classes.long(), scores.argmax(1))


def test_half_precision_scores_are_close():
    found = segmentor()
    batch = images(2, 64, 96)
    with torch.no_grad():
        scores, _ = TraceableSegmentor(found.model, half=True)(batch)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, found.model.semantic_logits(batch), atol=0.02)


def test_antialiased_positions_raise():
    backbone = DinoVisionTransformer(**SIZES, interpolate_antialias=True)
    with pytest.raises(ValueError, match="without antialiasing"):
        TraceableSegmentor(build_segmentor(backbone, **SMALL))


@pytest.mark.parametrize(
    ("name", "dtype", "sentence"),
    [("a.onnx", "int8", "dtype must be float32 or float16"), ("a.pt", "float32", "with .onnx")],
)
def test_invalid_output_raises_before_the_export(name, dtype, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        save_onnx(segmentor(), tmp_path / name, dtype=dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_exported_program_computes_other_sizes_and_batches():
    found = segmentor()
    program = export_program(found).module()
    for shape in SHAPES:
        batch = images(*shape)
        scores, _ = program(batch)
        assert torch.allclose(scores, found.model.semantic_logits(batch), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), [("dino", "float32"), ("eva02", "float16")])
def test_onnx_file_computes_what_the_model_computes(kind, dtype, tmp_path):
    pytest.importorskip("onnxscript", reason="needs pip install 'recyclelora[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime")
    import onnx

    found = segmentor(kind)
    path = save_onnx(found, tmp_path / "new" / "a.onnx", dtype=dtype)
    assert [file.name for file in path.parent.iterdir()] == ["a.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert "GridSample" not in {node.op_type for node in model.graph.node}
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["classes"] == list(found.class_names) and metadata["classes"][0] == "road"
    assert metadata["colors"] == [list(color) for color in COLORS]
    assert metadata["protocol"]["long_side"] == 96 and metadata["provenance"] == {"iteration": 9}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in SHAPES:
        batch = images(*shape)
        scores, classes = session.run(["scores", "classes"], {"images": batch.numpy()})
        expected = found.model.semantic_logits(batch)
        exact = dtype == "float32"
        assert np.allclose(scores, expected, atol=1e-4 if exact else 0.03)
        assert classes.shape == (shape[0], *shape[1:]) and classes.dtype == np.uint8
        if exact:
            assert (classes == expected.argmax(1).numpy()).mean() >= LEAST_EQUAL
    if dtype == "float32" and (root := os.environ.get("RECYCLELORA_DATA")):
        photographs = sorted(Path(root).glob("*/images/*"))[::400]
        for result in compare_onnx(found, path, [read_image(file) for file in photographs]):
            assert result.equal >= LEAST_EQUAL
        (line,) = check_onnx(found, path, photographs[:1], exact=True)
        assert "% of the pixels have the same class" in line
        other = segmentor("no_offset")
        with pytest.raises(ValueError, match=r"expected at least 99\.9 %"):
            list(check_onnx(other, path, photographs[:1], exact=True))
