"""Shipped configs by name, users' configs in any folder, and rejected files."""

import builtins
import json
import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recyclelora.config import config_names, get_config
from recyclelora.config.files import read_config
from recyclelora.engine import train as training
from recyclelora.engine.build import load_config

from ..support.training_runs import write_blocks

CONFIGS = Path(__file__).parents[2] / "configs"
OWN = """
from recyclelora.config import get_config

cfg = get_config("demo")
train, model, optimizer = cfg.train, cfg.model, cfg.optimizer
schedule, dataloader, evaluation = cfg.schedule, cfg.dataloader, cfg.evaluation
train.update(output_dir="output/mine", max_iter=7, seed=3)
"""
# A user's dataset, and a model for one step.
SMALL = """
from detectron2.config import LazyCall as L

from recyclelora.data import build_test_loader, register_folder

city = L(register_folder)(name="city", images="city/images", labels="city/labels")
train.update(device="cpu", picture_period=0)
backbone = model.backbone.module
backbone.weights = None
backbone.module.update(
    img_size=64, embed_dim=64, depth=4, num_heads=2, out_indices=[0, 1, 2, 3]
)
model.backbone.update(r_main=8, r_sub=2)
model.update(hidden_dim=32, nheads=2, enc_layers=1, enc_dim_feedforward=64, dec_layers=2)
model.update(dec_dim_feedforward=64, num_queries=20, num_points=128)
dataloader.train.update(dataset=[city], total_batch_size=2, num_workers=0)
dataloader.train.mapper.crop = 64
dataloader.test = dict(city=L(build_test_loader)(dataset=city, num_workers=0))
"""


def load(file, *overrides):
    return load_config(str(file), list(overrides))


def test_config_names_are_the_files_of_the_folder():
    assert config_names() == sorted(path.stem for path in CONFIGS.glob("*.py"))


def test_get_config_equals_the_config_file():
    assert get_config("demo") == read_config(str(CONFIGS / "demo.py"))


def test_get_config_changed_copy_leaves_the_next_unchanged():
    first = get_config("demo")
    before = OmegaConf.to_yaml(first.train)
    first.train.max_iter = 1
    first.optimizer.params.rules.clear()
    second = get_config("demo")
    assert OmegaConf.to_yaml(second.train) == before and second.optimizer.params.rules


def test_get_config_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="got 'streets_to_reel': the nearest are streets_to_real"):
        get_config("streets_to_reel")


def test_read_config_accepts_a_shipped_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load("demo", "train.seed=5").train.seed == 5


def test_read_config_existing_file_takes_precedence_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("not a config")
    with pytest.raises(ValueError, match=r"a config must be a Python file \(\.py\), got demo"):
        read_config("demo")


def test_own_config_elsewhere_resolves_across_sections(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    cfg = load(file, "train.max_iter=9", f"dataloader.streets={tmp_path}", "optimizer.lr=1e-3")
    assert cfg.dataloader.train.seed == 3
    assert cfg.schedule.iterations == 9
    assert cfg.optimizer.params.lr == 1e-3
    assert cfg.dataloader.train.dataset[0].images == f"{tmp_path}/day/images"


def test_relative_import_beyond_the_folder_names_get_config(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from .common.train import train\n")
    with pytest.raises(
        ValueError, match=r"'\.common\.train' from its own folder, where no such file"
    ):
        read_config(str(file))


def values_of(key: str, node: object) -> list[object]:
    """Return the values under this key in nested dictionaries and lists."""
    if isinstance(node, list):
        return [value for item in node for value in values_of(key, item)]
    if not isinstance(node, dict):
        return []
    inner = [value for item in node.values() for value in values_of(key, item)]
    return [*inner, *([node[key]] if key in node else [])]


@pytest.mark.parametrize("name", config_names())
@pytest.mark.parametrize("wanted", [False, True])
def test_checkpointing_key_reaches_the_backbone_of(name, wanted):
    cfg = load(name, f"train.checkpointing={wanted}")
    assert values_of("checkpointing", OmegaConf.to_container(cfg.model, resolve=True)) == [wanted]


def test_config_that_raises_leaves_the_import_function(tmp_path):
    before = builtins.__import__
    file = tmp_path / "mine.py"
    file.write_text('from recyclelora.config import get_config\n\nget_config("nowhere")\n')
    with pytest.raises(ValueError, match=r"mine\.py, line 3: .*name of a shipped config"):
        read_config(str(file))
    assert builtins.__import__ is before


@pytest.mark.slow
def test_own_config_elsewhere_trains_and_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_blocks(tmp_path / "city", 4)
    Path("mine.py").write_text(OWN + SMALL)
    for options in (["train.max_iter=1"], ["--resume", "train.max_iter=2"]):
        arguments = ["--config-file=mine.py", *options]
        training.run(training.argument_parser().parse_args(arguments))
    assert Path("output", "mine", "iter_0000002.pth").is_file()
    domains = json.loads(Path("output", "mine", "domains.json").read_text())["domains"]
    assert domains["city"]["images"] == 4
    for name in ("recyclelora", "detectron2", "fvcore"):  # their handlers write to the terminal
        logging.getLogger(name).handlers.clear()
