"""Settings that may change when a run is resumed, and settings that may not."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from recyclelora.config.overrides import apply_overrides
from recyclelora.config.resume_check import check_same_run, run_settings

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs").glob("*.py"))
REFUSED = [
    ("optimizer.lr=0.1", "with optimizer.lr=0.1 instead of 0.0001 and 1 more change"),
    ("optimizer.betas=[0.9,0.99]", "optimizer.betas.1=0.99 instead of 0.999"),
    ("optimizer.params.rules.lora_A_sub={lr_mult:2.0}", "optimizer.params.rules.lora_A_sub"),
    ("schedule.power=1.0", "schedule.power=1.0 instead of 0.9"),
    ("model.backbone.alpha=2.0", "model.backbone.alpha=2.0 instead of 1.0"),
    ("model.dropout=0.1", "model.dropout=0.1 instead of 0.0"),
    ("train.seed=1", "with train.seed=1 instead of 0 and 1 more change"),
    ("dataloader.train.total_batch_size=4", "total_batch_size=4 instead of 2"),
    ("dataloader.train.mapper.crop=32", "dataloader.train.mapper.crop=32 instead of 64"),
    ("dataloader.train.dataset.0.name=dusk", "dataset.0.name='dusk' instead of 'day'"),
    ("dataloader.train.subset=2", "dataloader.train.subset=2 instead of None"),
]
MAY_CHANGE = [
    ("train.max_iter=9", ["schedule.iterations=9 instead of 4", "train.max_iter=9 instead of 4"]),
    ("train.accumulate=2", ["train.accumulate=2 instead of 1"]),
    ("train.amp.dtype=bfloat16", ["train.amp.dtype='bfloat16' instead of 'float32'"]),
    ("train.ema=0.9", ["train.ema=0.9 instead of None"]),
    ("train.compile=True", ["train.compile=True instead of False"]),
    (
        "train.ema={decay:0.9}",
        ["train.ema=nothing instead of None", "train.ema.decay=0.9 instead of nothing"],
    ),
]
FREE = [
    "train.output_dir=elsewhere",
    "train.device=cpu",
    "train.log_period=7",
    "train.skip_bad_batches=3",
    "dataloader.streets=moved",
    "dataloader.train.num_workers=4",
    "dataloader.test.night=null",
    "evaluation.protocol.long_side=32",
    "model.backbone.module.weights=elsewhere.pth",
    "train.checkpointing=true",
    "model.backbone.module.module.checkpointing=true",
]


def tiny(*overrides):
    return apply_overrides(LazyConfig.load(str(ROOT / "tests/support/tiny_config.py")), overrides)


@pytest.fixture
def before(tmp_path):
    """Return the settings of a run of the tiny config, read from a checkpoint."""
    torch.save(run_settings(tiny()), tmp_path / "settings.pth")
    return torch.load(tmp_path / "settings.pth", weights_only=True)


def test_resume_same_config_has_no_changes(before):
    assert check_same_run(before, tiny(), source="a.pth") == []
    assert check_same_run(None, tiny("optimizer.lr=1"), source="a.pth") == []


@pytest.mark.parametrize(("override", "words"), REFUSED)
def test_resume_other_setting_is_refused(override, words, before):
    with pytest.raises(ValueError, match=r"^a.pth cannot be resumed with ") as refusal:
        check_same_run(before, tiny(override), source="a.pth")
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(("override", "changes"), MAY_CHANGE)
def test_resume_permitted_change_is_returned(override, changes, before):
    assert check_same_run(before, tiny(override), source="a.pth") == changes


@pytest.mark.parametrize("override", FREE)
def test_resume_setting_without_effect_is_ignored(override, before):
    assert check_same_run(before, tiny(override), source="a.pth") == []


def test_resume_explicit_default_is_no_change(before):
    spelled = {**before, "model.dropout": 0.0}
    assert check_same_run(spelled, tiny(), source="a.pth") == []
    assert check_same_run(before, tiny("model.dropout=0.0"), source="a.pth") == []
    with pytest.raises(ValueError, match=r"model.dropout=0.0 instead of 0.5"):
        check_same_run({**before, "model.dropout": 0.5}, tiny(), source="a.pth")


def test_resume_other_target_is_refused(before):
    cfg = tiny()
    options = {key: cfg.optimizer[key] for key in ("params", "lr", "betas", "weight_decay")}
    cfg.optimizer = L(torch.optim.Adam)(**options)
    with pytest.raises(ValueError, match=r"optimizer._target_='Adam' instead of 'AdamW'"):
        check_same_run(before, cfg, source="a.pth")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_settings_of_shipped_config_are_comparable(file, tmp_path):
    cfg = LazyConfig.load(str(file))
    torch.save(run_settings(cfg), tmp_path / "settings.pth")
    kept = torch.load(tmp_path / "settings.pth", weights_only=True)
    assert len(kept) > 30 and kept["train.seed"] == 0
    assert check_same_run(kept, cfg, source="a.pth") == []
