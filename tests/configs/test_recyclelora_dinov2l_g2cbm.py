"""The paper's setting at full size, on the meta device: counts, groups and hyper-parameters."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from PIL import Image

from drawn_streets import draw_street
from recyclelora.adapters import adapter_parameters

CONFIG = Path(__file__).parents[2] / "configs" / "recyclelora_dinov2l_g2cbm.py"


@pytest.fixture
def cfg():
    return LazyConfig.load(str(CONFIG))


def on_meta(cfg):
    with torch.device("meta"):
        return instantiate(cfg.model)


def count(parameters) -> int:
    return sum(p.numel() for p in parameters)


# The paper's Tables 5, 9, 10: 12.6, 1.6, 14.2, 13.4, 7.1, 7.9, 9.4, 15.7, 18.9, 25.2 M.
@pytest.mark.parametrize(
    ("r_main", "r_sub", "parameters"),
    [
        (32, 4, 14_155_776),
        (32, 0, 12_582_912),
        (0, 4, 1_572_864),
        (32, 2, 13_369_344),
        (16, 4, 7_864_320),
        (16, 2, 7_077_888),
        (16, 8, 9_437_184),
        (32, 8, 15_728_640),
        (32, 16, 18_874_368),
        (32, 32, 25_165_824),
    ],
)
def test_number_of_trained_parameters_is_the_papers(cfg, r_main, r_sub, parameters):
    cfg.model.backbone.update(r_main=r_main, r_sub=r_sub)
    model = on_meta(cfg)
    main, sub = adapter_parameters(model)
    assert count(main.values()) + count(sub.values()) == parameters
    assert count(p for p in model.backbone.parameters() if p.requires_grad) == parameters


def test_optimizer_has_the_published_groups(cfg):
    cfg.optimizer.params.model = on_meta(cfg)
    groups = {g["name"]: g for g in instantiate(cfg.optimizer).param_groups}
    assert groups.pop("head")["weight_decay"] == 0.05
    assert set(groups) == {"main adapter", "sub adapter", "head without decay"}
    assert groups["main adapter"]["lr"] == 1e-4 and groups["sub adapter"]["lr"] == 5e-5
    assert all(g["weight_decay"] == 0 for g in groups.values())
    assert count(groups["main adapter"]["params"]) == 12_582_912


def test_settings_are_those_of_table_8(cfg):
    assert cfg.train.max_iter == 40_000 and cfg.train.amp.dtype == "float32"
    assert cfg.train.accumulate == 1 and cfg.dataloader.train.total_batch_size == 4
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (1e-4, 0.05)
    schedule = instantiate(cfg.schedule)
    assert (schedule.iterations, schedule.power, schedule.decay_end) == (40_000, 0.9, 1e-5)
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert (mapper.crop, mapper.pad_to_crop) == (512, True)
    assert instantiate(cfg.evaluation.protocol).name == "paper"


@pytest.mark.slow
def test_one_iteration_fits_into_20_gb(tmp_path):
    """One step at full size with random weights: crop 512, batch size 1, whole head, float32."""
    for kind, content in zip(("images", "labels"), draw_street(0, 0, height=512, width=1024)):
        (tmp_path / kind).mkdir()
        Image.fromarray(content).save(tmp_path / kind / "0.png")
    folders = [str(tmp_path / "images"), str(tmp_path / "labels")]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "support" / "one_iteration.py"), *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert 0 < result["loss"] < 1000
    assert result["peak_bytes"] < 20e9
