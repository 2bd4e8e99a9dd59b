"""Export of the model of a run as a folder of recyclelora.Segmentor, from the command line."""

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig
from PIL import Image
from tools import export_segmentor, predict

import recyclelora
from recyclelora.common.digests import file_digest
from recyclelora.engine import save_checkpoint
from recyclelora.engine.build import build_model

from ..support.trained_adapters import learn
from ..support.training_runs import ROOT, TINY

CONFIG = str(ROOT / TINY)


def test_folder_predicts_what_the_predict_tool_predicts(tmp_path, capsys):
    model = build_model(LazyConfig.load(CONFIG), device=torch.device("cpu"))
    learn(model, scale=0.05)
    checkpoint, folder = tmp_path / "iter_0000009.pth", tmp_path / "segmentor"
    save_checkpoint(checkpoint, model=model, iteration=9)
    export_segmentor.main(["--config-file", CONFIG, str(checkpoint), str(folder)])
    assert f"wrote {folder}" in capsys.readouterr().out
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    photo = tmp_path / "photo.png"
    Image.fromarray(pixels).save(photo)
    given = [
        "--config-file",
        CONFIG,
        "--checkpoint",
        str(checkpoint),
        "--out",
        str(tmp_path / "out"),
    ]
    predict.main([*given, str(photo), "train.amp.dtype=float32"])
    segmentor = recyclelora.Segmentor.from_pretrained(folder, device="cpu")
    with Image.open(tmp_path / "out" / "photo_ids.png") as ids:
        assert np.array_equal(segmentor.predict(photo).classes, np.asarray(ids))
    predict.main(
        ["--segmentor", str(folder), "--device", "cpu", "--out", str(tmp_path / "s"), str(photo)]
    )
    for name in ("photo_ids.png", "photo_color.png", "photo_overlay.jpg"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert str(segmentor.protocol).startswith("native: every set at a long side of 96")
    assert segmentor.provenance["iteration"] == 9
    assert segmentor.provenance["checkpoint_sha256"] == file_digest(checkpoint)


def test_invalid_checkpoint_leaves_no_folder(tmp_path):
    (tmp_path / "x.pth").write_text("no checkpoint")
    with pytest.raises(SystemExit, match=r"error: .*x\.pth"):
        export_segmentor.main(
            ["--config-file", CONFIG, str(tmp_path / "x.pth"), str(tmp_path / "s")]
        )
    assert not (tmp_path / "s").exists()
