"""tools/analyze.py on trained checkpoints of tiny models."""

import json

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from PIL import Image
from tools import analyze

from recyclelora.engine import save_checkpoint
from recyclelora.engine.build import build_model, load_config

from ..support.training_runs import ROOT, TINY

CONFIG = str(ROOT / TINY)
KAIMING = "model.backbone.init=kaiming"


def write_checkpoint(folder, *overrides):
    """Write a checkpoint of a random model with trained adapters, and its scores."""
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG, overrides), device=torch.device("cpu"))
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    folder.mkdir()
    save_checkpoint(folder / "iter_0000009.pth", model=model, iteration=9)
    names = LazyConfig.load(CONFIG).dataloader.test
    iou = {"road": 50.0, "car": None}
    domains = {"domains": {name: {"mIoU": 50.0, "IoU": iou, "images": 2} for name in names}}
    (folder / "domains.json").write_text(json.dumps(domains))
    images = {name: {"a": 50.0, "b": 40.0} for name in names}
    (folder / "images.json").write_text(json.dumps(images))
    counts = np.zeros((19, 20), int)
    counts[0, [0, 13]] = 5, 4
    (folder / "confusion.json").write_text(json.dumps(dict.fromkeys(names, counts.tolist())))
    return str(folder / "iter_0000009.pth")


@pytest.mark.slow
def test_two_runs_are_compared_in_json_figures_and_report(tmp_path):
    first = write_checkpoint(tmp_path / "rrqr")
    second = write_checkpoint(tmp_path / "kaiming", KAIMING)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90), dtype=np.uint8)).save(photo)
    command = ["--config-file", CONFIG, "--weights", first, "--against", second, KAIMING]
    analyze.main([*command, "--images", str(photo), "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    rrqr, kaiming = found["runs"].values()
    assert list(found["runs"]) == ["rrqr/iter_0000009", "kaiming/iter_0000009"]
    assert rrqr["overall"]["main"]["column_norms"]["mean_ratio"] > 1
    assert "column_norms" not in kaiming["overall"]["main"]
    assert found["scores"]["kaiming/iter_0000009"]["day"]["difference"] == 0
    figures = {file.name for file in (tmp_path / "out" / "figures").iterdir()}
    assert {"features.png", "features.svg", "subspaces.svg", "classes_day.png"} <= figures
    assert "confusion_day.png" in figures
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png") == len(figures) // 2
    assert 'src="http' not in page and "href" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--block", "4"], "--block must be 0 to 3, got 4"),
        (["--images", "missing.jpg"], "no photograph or folder at missing.jpg"),
        (["--against", "a.pth", "x.py", "y.py"], "must have at most one config"),
        (["--weights", "missing.pth"], "missing.pth"),
    ],
)
def test_invalid_option_ends_in_one_sentence(tmp_path, options, message):
    weights = write_checkpoint(tmp_path / "run")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 64)).save(photo)
    command = ["--config-file", CONFIG, "--weights", weights, "--images", str(photo)]
    with pytest.raises(SystemExit) as stopped:
        analyze.main([*command, "--out", str(tmp_path / "out"), *options])
    assert message in str(stopped.value.code) and "\n" not in str(stopped.value.code)
    assert not (tmp_path / "out").exists()
