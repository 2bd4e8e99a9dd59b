"""The documented config for own data, with other labels and classes, outside the repository."""

import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from recyclelora.config.objects import instantiate
from recyclelora.data.datasets import get_dataset
from recyclelora.engine import train as training
from recyclelora.engine.build import load_config

PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"
TRAIN_ID = {1: 0, 2: 2, 3: 8, 4: 10, 5: 13, 9: 255}
# The documented model is a complete DINOv2.
SMALL = """
train.update(device="cpu", picture_period=0)
model.backbone.module.weights = None
model.backbone.module.module.update(
    img_size=64, embed_dim=64, depth=4, num_heads=2, out_indices=[0, 1, 2, 3]
)
model.backbone.update(r_main=8, r_sub=2)
model.update(hidden_dim=32, nheads=2, enc_layers=1, enc_dim_feedforward=64, dec_layers=2)
model.update(dec_dim_feedforward=64, num_queries=20, num_points=128)
dataloader.train.update(total_batch_size=2, num_workers=0)
dataloader.train.mapper.crop = 64
dataloader.test["my town"].num_workers = 0
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write the config of the page to a folder, and its dataset."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOWN", str(tmp_path / "town"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            Path("town", part, kind).mkdir(parents=True)
        for number in range(2):
            label = rng.choice(list(TRAIN_ID), (6, 8)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
            image = np.stack([label * 20, 255 - label * 9, label * 5], axis=-1)
            cv2.imwrite(f"town/{part}/images/{number}.png", image)
            cv2.imwrite(f"town/{part}/labels/{number}.png", label)
    text = PAGE.read_text(encoding="utf-8")
    folders, labels = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (replacement,) = re.findall(r"`(return L\(.*label_map=.*\))`", text)
    folders, count = re.subn(r"return L\(.*\)", lambda _: replacement, folders)
    assert count == 1
    Path("my_town.py").write_text(labels + folders + SMALL, encoding="utf-8")
    return "my_town.py"


def test_own_data_config_reads_its_labels(config, tmp_path):
    cfg = load_config(config, ["dataloader.test.'my town'.subset=1"])
    assert cfg.train.output_dir == f"{tmp_path}/home/runs/my_town"
    train = instantiate(cfg.dataloader.train.dataset)
    loader = instantiate(cfg.dataloader.test["my town"])
    (sample,) = loader
    written = cv2.imread(str(sample["file_name"]).replace("images", "labels"), cv2.IMREAD_GRAYSCALE)
    expected = np.vectorize(TRAIN_ID.get)(written)
    assert np.array_equal(np.asarray(sample["sem_seg"]), expected)
    assert len(get_dataset(train[0]).records()) == 2
    assert loader.metadata.folding.labels == ("road", "building", "vegetation", "sky", "car")


@pytest.mark.slow
def test_own_data_config_trains_resumes_and_evaluates(config, tmp_path):
    for options in (["train.max_iter=1"], ["--resume", "train.max_iter=2"]):
        arguments = ["--config-file", config, *options]
        training.run(training.argument_parser().parse_args(arguments))
    output = tmp_path / "home" / "runs" / "my_town"
    assert (output / "iter_0000002.pth").is_file()
    assert "my_town" in (output / "config.yaml").read_text(encoding="utf-8")
    town = json.loads((output / "domains.json").read_text(encoding="utf-8"))["domains"]["my town"]
    assert town["images"] == 2
    scored = {name for name, score in town["IoU"].items() if score is not None}
    assert scored == {"road", "building", "vegetation", "sky", "car"}
    for name in ("recyclelora", "detectron2", "fvcore"):  # their handlers write to the terminal
        logging.getLogger(name).handlers.clear()
