"""Every baseline through the training tool: three iterations, resumed, evaluated."""

import importlib.util
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from recyclelora.engine import read_checkpoint

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "lazyconfig_train_net.py"
BACKBONE = "model.backbone.module.module"
# The published settings with a ViT 64 wide and 4 deep, a small head and small images.
TINY = (
    "train.max_iter=3 train.checkpoint_period=2 train.picture_period=0 train.checkpoints_kept=9 "
    "train.device=cpu dataloader.train.total_batch_size=2 dataloader.train.num_workers=0 "
    "dataloader.train.mapper.crop=64 dataloader.test.bdd100k=null dataloader.test.mapillary=null "
    "dataloader.test.cityscapes.num_workers=0 model.hidden_dim=32 model.nheads=2 "
    "model.enc_layers=1 model.enc_dim_feedforward=64 model.dec_layers=2 "
    "model.dec_dim_feedforward=64 model.num_queries=20 model.num_points=128 "
    "model.backbone.module.weights=null "
    "evaluation.protocol={_target_:recyclelora.evaluation.native,long_side:96} "
    f"{BACKBONE}.img_size=64 {BACKBONE}.embed_dim=64 {BACKBONE}.depth=4 {BACKBONE}.num_heads=2 "
    f"{BACKBONE}.out_indices=[0,1,2,3]"
).split()
CONFIGS = {
    "frozen_dinov2l_g2cbm": [],
    "full_dinov2l_g2cbm": [],
    "lora_dinov2l_g2cbm": [],
    "pissa_dinov2l_g2cbm": [],
    "dora_dinov2l_g2cbm": [],
    "soma_dinov2l_g2cbm": ["model.backbone.first_block=2", "train.ema.start=1"],
    "rein_dinov2l_g2cbm": [],
}


@pytest.fixture(autouse=True)
def no_stale_handlers():
    """A run logs to the terminal it began with, which pytest takes away after each test."""
    yield
    for name in ("recyclelora", "detectron2", "fvcore"):
        logging.getLogger(name).handlers.clear()


@pytest.fixture
def run(tiny_set):
    """``run(config, *options)``: the tool in this process, on small sets."""
    spec = importlib.util.spec_from_file_location("lazyconfig_train_net", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    source, target = tiny_set("source"), tiny_set("target", count=2)
    sets = [f"dataloader.train.dataset=[{source}]", f"dataloader.test.cityscapes.dataset={target}"]

    def main(config, *options):
        given = ["--config-file", str(ROOT / "configs" / f"{config}.py"), *options]
        tool.main(tool.default_argument_parser().parse_args(given + TINY + sets))

    return main


@pytest.mark.slow
@pytest.mark.parametrize(("config", "options"), CONFIGS.items(), ids=CONFIGS)
def test_it_trains_resumes_bit_for_bit_and_evaluates(config, options, run, tmp_path):
    whole, resumed, again = (tmp_path / name for name in ("whole", "resumed", "again"))
    run(config, f"train.output_dir={whole}", *options)
    resumed.mkdir()
    shutil.copy(whole / "iter_0000002.pth", resumed)  # as a run leaves it that was killed then
    run(config, "--resume", f"train.output_dir={resumed}", *options)
    first, second = (read_checkpoint(folder / "iter_0000003.pth") for folder in (whole, resumed))
    assert first["model"].keys() == second["model"].keys()
    for part in ("model", "ema"):
        for name, value in first.get(part, {}).items():
            assert torch.equal(value, second[part][name]), name
    checkpoint = f"train.init_checkpoint={whole / 'iter_0000003.pth'}"
    run(config, "--eval-only", f"train.output_dir={again}", checkpoint, *options)
    scores = [json.loads((folder / "domains.json").read_text()) for folder in (whole, again)]
    assert scores[0] == scores[1]
