"""``~`` and variables are replaced in all paths of a config."""

import os
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from recyclelora.config.paths import expand_paths
from recyclelora.engine.build import load_config

WEIGHTS = "model.backbone.module.weights"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DISK", str(tmp_path / "disk"))
    return tmp_path


def read_from(where: Path | None, name: str = "~/not a path"):
    return where, name


@pytest.mark.parametrize(("start", "folder"), [("~", "home"), ("$DISK", "disk"), ("${DISK}", "")])
@pytest.mark.parametrize("key", ["train.output_dir", "train.init_checkpoint", WEIGHTS])
def test_path_of_an_override_is_expanded(home, key, start, folder):
    if not folder:  # the syntax of an interpolation
        with pytest.raises(ValueError, match=r"'DISK' not found.*\$NAME in a path, or \$\{oc\.env"):
            load_config("demo", [f"{key}={start}/a b"])
        return
    cfg = load_config("demo", [f"{key}={start}/a b"])
    assert OmegaConf.select(cfg, key) == str(home / folder / "a b")


def test_path_by_interpolation_is_expanded(home):
    cfg = load_config("demo", ["dataloader.streets=~/streets"])
    assert cfg.dataloader.train.dataset[0].images == f"{home}/home/streets/day/images"
    test = cfg.dataloader.test["streets night"]
    assert test.dataset.labels == f"{home}/home/streets/night/labels"
    assert load_config("demo", ["train.output_dir=${oc.env:DISK}/x"]).train.output_dir == (
        f"{home}/disk/x"
    )


def test_path_argument_of_any_target_is_expanded(home):
    cfg = load_config("demo", [])
    cfg.model.more = L(read_from)(where="$DISK/a", name="~/b")
    cfg.dataloader.more = L(read_from)(where=Path("~/c"))
    expand_paths(cfg)
    assert cfg.model.more == {**cfg.model.more, "where": f"{home}/disk/a", "name": "~/b"}
    assert cfg.dataloader.more.where == f"{home}/home/c"


def test_path_with_unset_variable_names_key_and_variable(monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ValueError, match=r"weights: the path '\$NOT_SET/a' names .* NOT_SET"):
        load_config("demo", [f"{WEIGHTS}=$NOT_SET/a"])


def test_path_of_config_file_is_expanded(home):
    (home / "home").mkdir()
    (home / "home" / "mine.py").write_text("raise ValueError('read')\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"home/mine\.py, line 1.*read"):
        load_config("~/mine.py", [])


def test_path_that_exists_with_a_dollar_is_kept(tmp_path):
    (tmp_path / "US$5").mkdir()
    (tmp_path / "$money").mkdir()
    for name in ("US$5", "$money"):
        path = os.path.join(tmp_path, name)
        assert load_config("demo", [f"train.output_dir={path}"]).train.output_dir == path
