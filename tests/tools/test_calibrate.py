"""A temperature fitted from the command line, and predictions with it."""

import json

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from PIL import Image
from tools import calibrate, export_segmentor, predict

import recyclelora
from recyclelora.engine import save_checkpoint
from recyclelora.engine.build import build_model

from ..support.trained_adapters import learn
from ..support.training_runs import ROOT, TINY, write_blocks

CONFIG = str(ROOT / TINY)


@pytest.fixture
def run(tmp_path):
    """A checkpoint, its segmentor, and the overrides that name the data."""
    model = build_model(LazyConfig.load(CONFIG), device=torch.device("cpu"))
    learn(model, scale=0.05)
    checkpoint = tmp_path / "iter_0000009.pth"
    save_checkpoint(checkpoint, model=model, iteration=9)
    export_segmentor.main(
        ["--config-file", CONFIG, str(checkpoint), str(tmp_path / "s"), "--form", "merged"]
    )
    for name in ("day", "night"):
        write_blocks(tmp_path / name, 2)
    return checkpoint, tmp_path / "s", [f"dataloader.streets={tmp_path}"]


def test_temperature_is_fitted_stored_and_used(run, tmp_path, capsys):
    checkpoint, folder, data = run
    out = tmp_path / "calibration.json"
    given = ["--config-file", CONFIG, "--fit", "day", "--out", str(out), *data]
    calibrate.main(["--checkpoint", str(checkpoint), *given, "train.amp.dtype=float32"])
    of_run = json.loads(out.read_text())
    calibrate.main(["--segmentor", str(folder), "--device", "cpu", "--keep", *given])
    assert "temperature" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content["temperature"] == pytest.approx(of_run["temperature"], rel=1e-3)
    assert content["NLL"]["after"] <= content["NLL"]["before"]
    assert set(content["domains"]) == {"day", "night"} and content["fitted_on"] == ["day"]
    assert set(content["domains"]["day"]["after"]) == {"ECE", "AUROC"}
    photo = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(photo)
    before = recyclelora.Segmentor.from_pretrained(folder, device="cpu")
    assert before.temperature == 1.0  # --keep
    calibrate.main(["--segmentor", str(folder), "--device", "cpu", *given])
    after = recyclelora.Segmentor.from_pretrained(folder, device="cpu")
    assert after.temperature == content["temperature"] != 1.0
    results = [one.predict(photo) for one in (before, after)]
    assert np.array_equal(results[0].classes, results[1].classes)
    assert not np.allclose(results[0].confidence, results[1].confidence)
    kinds = ["--save", "confidence", "--device", "cpu"]
    predict.main(["--segmentor", str(folder), "--out", str(tmp_path / "out"), *kinds, str(photo)])
    shown = np.asarray(Image.open(tmp_path / "out" / "p.png")) / 255
    assert np.abs(shown - results[1].confidence).max() < 0.003


def test_unknown_domain_exits_with_one_sentence(run, tmp_path):
    checkpoint, _, data = run
    given = ["--checkpoint", str(checkpoint), "--config-file", CONFIG, "--fit", "fog"]
    with pytest.raises(SystemExit, match="no domain 'fog' to fit the temperature to: name one of"):
        calibrate.main([*given, "--out", str(tmp_path / "c.json"), *data])
    assert not (tmp_path / "c.json").exists()
