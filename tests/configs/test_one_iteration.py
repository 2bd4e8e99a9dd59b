"""One iteration and an evaluation of every config, made tiny, on datasets in original formats."""

import json
import math
from pathlib import Path

import pytest

from recyclelora.config.overrides import apply_overrides
from recyclelora.config.validation import check_config
from recyclelora.data.datasets import get_dataset
from recyclelora.engine.training import train

from ..support.originals import write_all
from ..support.paper_configs import NAMES, load
from ..support.tiny_overrides import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("closed_logs")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Return the folder of all datasets, with three pairs each."""
    root = tmp_path_factory.mktemp("originals")
    write_all(root)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_tiny_config_trains_and_evaluates(name, originals, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(originals))
    cfg = tiny(load(name))
    targets = dict(cfg.dataloader.test)
    overrides = [f"dataloader.test.{target}.num_workers=0" for target in targets]
    # At full size, one image would have 18 windows of 512. Other tests cover the protocols.
    overrides.append("evaluation.protocol={_target_:recyclelora.evaluation.native,long_side:128}")
    cfg = apply_overrides(cfg, [*overrides, f"train.output_dir={tmp_path}"])
    check_config(cfg)
    train(cfg)
    assert (tmp_path / "iter_0000001.pth").is_file()
    (line,) = map(json.loads, Path(tmp_path, "metrics.json").read_text().splitlines())
    assert line["iteration"] == 0 or line["iteration"] == 1
    assert 0 < line["total_loss"] < math.inf
    domains = json.loads((tmp_path / "domains.json").read_text())["domains"]
    assert {target: found["images"] for target, found in domains.items()} == {
        target: len(get_dataset(loader.dataset).pairs()) for target, loader in targets.items()
    }
