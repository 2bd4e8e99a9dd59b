"""The trained segmentor in results/ opens in three lines and predicts like its checkpoint."""

import json
import os
from pathlib import Path

import pytest
import torch

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


@pytest.mark.slow
def test_shipped_segmentor_predicts_like_its_checkpoint():
    base, root = WEIGHTS["dinov2_vits14_focus"], os.environ.get("RECYCLELORA_DATA")
    if not (cache_dir() / base.file).exists() or root is None:
        pytest.skip("needs the base weights in the cache, and RECYCLELORA_DATA")
    segmentor = Segmentor.from_pretrained(RESULTS / "segmentor", device="cpu")
    run = load_run(
        str(RESULTS / "recyclelora.pth"),
        config_file=str(ROOT / "configs" / "streets_to_real.py"),
        overrides=[],
        device="cpu",
        dtype="float32",
    )
    photograph = read_image(sorted(Path(root).glob("*/images/*"))[0])
    found = segmentor.predict(photograph)
    with torch.no_grad(), predictor(run.model) as predict:
        (expected,) = run.segment(predict, [photograph])
    assert (found.classes == expected.classes).mean() > 0.999
