"""tools/compare.py on saved predictions of two runs."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from tools import compare

from recyclelora.data import COLORS

from ..support.training_runs import ROOT, TINY, write_blocks

CONFIG = str(ROOT / TINY)
NAMES = ("000", "001", "002")


@pytest.fixture
def runs(tmp_path):
    """Write streets, and two runs that predict only road and only sky."""
    for name in ("day", "night"):
        write_blocks(tmp_path / "streets" / name, count=3)
    scores = {"road": [10.0, 20.0, None], "sky": [10.0, 50.0, 30.0]}
    for (run, values), ids in zip(scores.items(), (0, 10)):
        folder = tmp_path / run / "predictions" / "day"
        folder.mkdir(parents=True)
        for name in NAMES:
            cv2.imwrite(str(folder / f"{name}.png"), np.full((64, 96), ids, np.uint8))
        images = {"day": dict(zip(NAMES, values))}
        (tmp_path / run / "images.json").write_text(json.dumps(images), encoding="utf-8")
    return tmp_path


def draw(folder, *options, runs=("road", "sky")):
    command = ["--config-file", CONFIG, "--domain", "day", "--out", str(folder / "grid.png")]
    words = [*(str(folder / run) for run in runs), f"dataloader.streets={folder}/streets"]
    compare.main([*command, *options, "--", *words])
    return np.asarray(Image.open(folder / "grid.png"))


def test_grid_shows_the_images_that_differ_most(runs, capsys):
    grid = draw(runs, "--count", "1")
    assert capsys.readouterr().out.endswith("grid.png: 001\n")
    assert grid.shape[1] == 4 * 384 + 5 * 8
    middle = 34 + 28 + 100
    assert (grid[middle, 8 + 392 + 100] == COLORS[0]).all()
    assert (grid[middle, 8 + 2 * 392 + 100] == COLORS[10]).all()


def test_one_run_shows_best_and_worst(runs, capsys):
    draw(runs, "--count", "2", runs=("sky",))
    assert capsys.readouterr().out.endswith("grid.png: 001, 000\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--domain", "dawn"], "has no domain 'dawn': choose from day"),
        (["--images", "009"], "domain 'day' has no image '009'"),
    ],
)
def test_unknown_domain_or_image_ends_in_one_sentence(runs, options, message):
    with pytest.raises(SystemExit, match=message):
        draw(runs, *options)
    assert not (runs / "grid.png").exists()


def test_run_without_predictions_ends_in_one_sentence(runs):
    (runs / "sky" / "predictions" / "day" / "001.png").unlink()
    with pytest.raises(SystemExit, match=r"evaluation\.save_predictions=train_ids"):
        draw(runs)
