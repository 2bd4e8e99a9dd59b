"""The trained segmentor in results/ opens in three lines and predicts like its checkpoint."""

import json
import os
from pathlib import Path

import pytest
import torch
from tools import export_onnx

from recyclelora import Segmentor
from recyclelora.backbone import WEIGHTS
from recyclelora.backbone.weights import cache_dir
from recyclelora.common.digests import file_digest
from recyclelora.data import read_image
from recyclelora.engine.predictor import predictor
from recyclelora.export.trained_segmentor import load_run

from ..support.training_runs import ROOT

RESULTS = ROOT / "results" / "streets_to_real"


def test_shipped_segmentor_is_small_and_names_its_checkpoint():
    config = json.loads((RESULTS / "segmentor" / "config.json").read_text())
    weights = RESULTS / "segmentor" / "model.safetensors"
    assert weights.stat().st_size < 20e6 and file_digest(weights) == config["weights_sha256"]
    assert config["provenance"]["checkpoint_sha256"] == file_digest(RESULTS / "recyclelora.pth")


@pytest.fixture
def photographs():
    """The first photograph of each set of real images."""
    base, root = WEIGHTS["dinov2_vits14_focus"], os.environ.get("RECYCLELORA_DATA")
    if not (cache_dir() / base.file).exists() or root is None:
        pytest.skip("needs the base weights in the cache, and RECYCLELORA_DATA")
    return [sorted(folder.glob("*"))[0] for folder in sorted(Path(root).glob("*/images"))]


@pytest.mark.slow
def test_shipped_segmentor_as_onnx_in_half_precision(photographs, tmp_path, capsys):
    pytest.importorskip("onnxscript", reason="needs pip install 'recyclelora[onnx]'")
    pytest.importorskip("onnxruntime")
    checks = [word for file in photographs for word in ("--check", str(file))]
    output = tmp_path / "a.onnx"
    export_onnx.main([str(RESULTS / "segmentor"), str(output), "--dtype", "float16", *checks])
    assert output.stat().st_size < 55e6  # 97 MB in float32
    lines = capsys.readouterr().out.splitlines()
    shares = [float(line.rpartition(": ")[2].split(" %")[0]) for line in lines[1:]]
    assert len(shares) == len(photographs) and min(shares) > 99.9


@pytest.mark.slow
def test_shipped_segmentor_predicts_like_its_checkpoint(photographs):
    segmentor = Segmentor.from_pretrained(RESULTS / "segmentor", device="cpu")
    run = load_run(
        str(RESULTS / "recyclelora.pth"),
        config_file=str(ROOT / "configs" / "streets_to_real.py"),
        overrides=[],
        device="cpu",
        dtype="float32",
    )
    photograph = read_image(photographs[0])
    found = segmentor.predict(photograph)
    with torch.no_grad(), predictor(run.model) as predict:
        (expected,) = run.segment(predict, [photograph])
    assert (found.classes == expected.classes).mean() > 0.999
