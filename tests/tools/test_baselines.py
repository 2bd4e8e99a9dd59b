"""Three iterations of every baseline with the training tool, resumed and evaluated."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from recyclelora.engine import read_checkpoint, train

from ..support.tiny_overrides import TINY

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "lazyconfig_train_net.py"
SMALL = [
    "train.max_iter=3",
    "train.checkpoint_period=2",
    "train.checkpoints_kept=9",
    "dataloader.train.mapper.crop=64",
    "dataloader.test.bdd100k=null",
    "dataloader.test.mapillary=null",
    "dataloader.test.cityscapes.num_workers=0",
    "evaluation.protocol={_target_:recyclelora.evaluation.native,long_side:96}",
]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("closed_logs")]
CONFIGS = {
    "frozen_dinov2l_g2cbm": [],
    "full_dinov2l_g2cbm": [],
    "lora_dinov2l_g2cbm": [],
    "pissa_dinov2l_g2cbm": [],
    "dora_dinov2l_g2cbm": [],
    "soma_dinov2l_g2cbm": ["model.backbone.first_block=2", "train.ema.start=1"],
    "rein_dinov2l_g2cbm": [],
}


@pytest.fixture
def run(tiny_set):
    """``run(config, overrides, *flags)``: the tool in this process, on small datasets."""
    source, target = tiny_set("source"), tiny_set("target", count=2)
    sets = [f"dataloader.train.dataset=[{source}]", f"dataloader.test.cityscapes.dataset={target}"]

    def main(config, options, *flags):
        file = str(ROOT / "configs" / f"{config}.py")
        given = ["--config-file", file, *flags, *TINY, *SMALL, *sets, *options]
        train.run(train.argument_parser().parse_args(given))

    return main


@pytest.mark.parametrize(("config", "options"), CONFIGS.items(), ids=CONFIGS)
def test_baseline_trains_resumes_and_evaluates(config, options, run, tmp_path):
    whole, resumed, again = (tmp_path / name for name in ("whole", "resumed", "again"))
    run(config, [f"train.output_dir={whole}", *options])
    resumed.mkdir()
    shutil.copy(whole / "iter_0000002.pth", resumed)  # the files of a killed run
    run(config, [f"train.output_dir={resumed}", *options], "--resume")
    first, second = (read_checkpoint(folder / "iter_0000003.pth") for folder in (whole, resumed))
    assert first["model"].keys() == second["model"].keys()
    for part in ("model", "ema"):
        for name, value in first.get(part, {}).items():
            assert torch.equal(value, second[part][name]), name
    checkpoint = f"evaluation.checkpoint={whole / 'iter_0000003.pth'}"
    run(config, [f"train.output_dir={again}", checkpoint, *options], "--eval-only")
    scores = [json.loads((folder / "domains.json").read_text()) for folder in (whole, again)]
    weights = [score.pop("checkpoint")["weights_sha256"] for score in scores]  # and other files
    assert weights[0] == weights[1] and scores[0] == scores[1]
