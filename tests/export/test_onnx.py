"""A segmentor in traceable operators, as a program of torch.export, and as an ONNX file."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from recyclelora import Segmentor, adapt
from recyclelora.backbone import DinoVisionTransformer, Eva02VisionTransformer
from recyclelora.data import COLORS, read_image
from recyclelora.evaluation import native
from recyclelora.export import onnx_file
from recyclelora.export.onnx_file import (
    LEAST_EQUAL,
    Agreement,
    check_onnx,
    compare_onnx,
    photographs_to_compare,
    save_onnx,
)
from recyclelora.export.program import export_program
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


@pytest.fixture
def photograph(tmp_path):
    """A photograph of 800x275 pixels, which a protocol with a long side of 96 shrinks to 96x33."""
    file = tmp_path / "wide.png"
    Image.new("RGB", (800, 275)).save(file)
    return file


def found_agreement(monkeypatch, **values):
    """Let every comparison find these values; return the shapes of the compared images."""
    shapes = []

    def agreements(segmentor, path, images):
        for image in images:
            shapes.append(image.shape)
            yield Agreement(image.shape[:2], **values)

    monkeypatch.setattr(onnx_file, "_agreements", agreements)
    return shapes


def test_check_compares_at_the_size_of_the_protocol(photograph, monkeypatch):
    shapes = found_agreement(monkeypatch, equal=1.0, largest=0.0, median=0.0)
    found = SimpleNamespace(protocol=native(long_side=96))
    (line,) = check_onnx(found, "a.onnx", [photograph], dtype="float32")
    assert line.startswith(f"{photograph}: 100.000 % of the pixels have the same class")
    found.protocol = native()  # at its own size
    Image.new("RGB", (3000, 1500)).save(photograph)
    list(check_onnx(found, "a.onnx", [photograph], dtype="float32"))
    assert shapes == [(33, 96, 3), (724, 1448, 3)]


def test_check_of_a_narrow_photograph_raises(photograph, monkeypatch):
    found_agreement(monkeypatch, equal=1.0, largest=0.0, median=0.0)
    found = SimpleNamespace(protocol=native(long_side=96))
    Image.new("RGB", (800, 260)).save(photograph)
    with pytest.raises(ValueError, match="at least 33 pixels after resizing, got 96x31: compare"):
        list(check_onnx(found, "a.onnx", [photograph], dtype="float32"))


@pytest.mark.parametrize(
    ("dtype", "equal", "median", "sentence"),
    [
        ("float32", 0.998, 0.0, r"expected at least 99\.9 % and at most 0\.0001 in the median$"),
        ("float32", 1.0, 0.001, "expected at least"),
        (
            "float16",
            0.98,
            0.0,
            "expected at least 99 % and at most 0.01 in the median: use float32",
        ),
        ("float16", 1.0, 0.02, "differ by 0.02 in the median"),
        ("float16", 1.0, float("nan"), "differ by nan in the median"),
    ],
)
def test_check_of_other_scores_raises(dtype, equal, median, sentence, photograph, monkeypatch):
    found_agreement(monkeypatch, equal=equal, largest=0.1, median=median)
    found = SimpleNamespace(protocol=native(long_side=96))
    with pytest.raises(ValueError, match=sentence):
        list(check_onnx(found, "a.onnx", [photograph], dtype=dtype))


def test_photographs_to_compare_are_ten_of_each_path(tmp_path):
    for folder, count in (("a", 12), ("b", 1)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number:02d}.png").touch()
    found = photographs_to_compare([tmp_path / "a", tmp_path / "b"])
    assert [file.stem for file in found] == [f"{i:02d}" for i in range(10)] + ["00"]
    with pytest.raises(FileNotFoundError, match="no photograph or folder at"):
        photographs_to_compare([tmp_path / "c"])


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
            assert (classes == expected.argmax(1).numpy()).mean() >= LEAST_EQUAL["float32"]
    if dtype == "float32" and (root := os.environ.get("RECYCLELORA_DATA")):
        photographs = sorted(Path(root).glob("*/images/*"))[::400]
        for result in compare_onnx(found, path, [read_image(file) for file in photographs]):
            assert result.equal >= LEAST_EQUAL["float32"]
        (line,) = check_onnx(found, path, photographs[:1], dtype="float32")
        assert "% of the pixels have the same class" in line
        other = segmentor("no_offset")
        with pytest.raises(ValueError, match=r"expected at least 99\.9 %"):
            list(check_onnx(other, path, photographs[:1], dtype="float32"))
