"""Objects in configs, of dataclasses and of other types, are built unchanged or rejected."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from torch import nn

from recyclelora.config.files import read_config
from recyclelora.config.objects import as_calls, config_text, instantiate
from recyclelora.config.overrides import apply_overrides
from recyclelora.config.resume_check import check_same_run, run_settings
from recyclelora.config.validation import check_config
from recyclelora.data import CAMVID, CITYSCAPES_IDS, TRAIN_IDS, LabelMap, register_folder
from recyclelora.data.folder_dataset import Layout
from recyclelora.engine.build import load_config
from recyclelora.evaluation import Protocol


@dataclass(frozen=True)
class Size:
    width: int
    sides: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Nested:
    size: Size
    sizes: list[Size] = field(default_factory=list)
    by_name: Mapping[str, Size] = field(default_factory=dict)
    function: Callable = len
    anything: Any = None


@dataclass
class Derived:
    width: int
    area: int = field(init=False)

    def __post_init__(self):
        self.area = self.width**2


@dataclass
class Scaled:
    width: int
    scale: InitVar[int] = 1

    def __post_init__(self, scale):
        self.scaled = self.width * scale


def keep(**arguments):
    return arguments


def stored(value, **more):
    """Return a config that passes ``value`` to a call, as the tool stores it."""
    call = L(keep)(value=value, **more)
    return OmegaConf.create(as_calls(call, "key"), flags={"allow_objects": True})


GIVEN = {
    "label map": TRAIN_IDS,
    "label map with channel": LabelMap("red", {3: 0}, ignore_others=True, channel=0),
    "folding": CAMVID,
    "protocol": Protocol("mine", sizes={"acdc": (960, 540)}, halve=("acdc",)),
    "layout": Layout("images", "labels"),
    "tuple field": Size(3, (4, 5)),
    "nested": Nested(Size(1), [Size(2)], {"a": Size(3, ())}, max, (1, 2)),
    "nested anything": Nested(Size(1), anything=TRAIN_IDS),
    "derived field": Derived(3),
    "in a list": [Size(1), {"deep": Size(2)}],
    "in a dictionary": {"a": [TRAIN_IDS], 3: "x"},
    "function": len,
    "lambda": lambda: 3,
    "class": nn.Linear,
    "partial": functools.partial(nn.Linear, 3),
    "bound method": TRAIN_IDS.to_train_ids,
    "path": Path("a"),
    "dtype": torch.float16,
    "set": {1, 2},
}


@pytest.mark.parametrize("value", GIVEN.values(), ids=GIVEN)
def test_object_in_a_call_arrives_as_it_was(value):
    built = instantiate(stored(value))["value"]
    assert built == value and type(built) is type(value)


@pytest.mark.parametrize("value", GIVEN.values(), ids=GIVEN)
def test_object_in_a_config_is_saved_as_plain_yaml(value):
    saved = yaml.safe_load(config_text(stored(value)))
    assert saved["_target_"].endswith("test_objects.keep") and saved["value"]


def test_object_of_class_with_lost_value_is_refused():
    changed = Derived(3)
    changed.area = 10
    with pytest.raises(ValueError, match=r"key\.value: Derived has values in area that"):
        stored(changed)


def test_object_with_init_only_argument_is_refused():
    with pytest.raises(ValueError, match=r"key\.value .* Scaled also needs 'scale'"):
        stored(Scaled(3, scale=2))


def test_dataclass_itself_is_refused():
    with pytest.raises(ValueError, match=r"key\.value .* Size also needs 'width'.*partial\(Size\)"):
        stored(Size)
    assert instantiate(stored(functools.partial(Size)))["value"](2) == Size(2)


def test_field_of_object_can_be_overridden_and_interpolated():
    cfg = stored(Nested(Size(1), by_name={"a": Size(2)}), width=5)
    overrides = ["value.size.width=${width}", "value.by_name.a.sides=[7]", "value.anything=x"]
    built = instantiate(apply_overrides(cfg, overrides))["value"]
    assert built == Nested(Size(5), [], {"a": Size(2, (7,))}, len, "x")


def config_with(tmp_path, lines):
    """Write a config outside the repository that starts from a shipped one."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import functools\nfrom dataclasses import dataclass\n"
        "from detectron2.config import LazyCall as L\n"
        "from recyclelora.config import get_config\n"
        "from recyclelora.data import *\nfrom recyclelora.data import register_folder\n"
        "from recyclelora.evaluation import Protocol\n"
        "cfg = get_config('demo')\n"
        "train, model, optimizer = cfg.train, cfg.model, cfg.optimizer\n"
        "schedule, dataloader, evaluation = cfg.schedule, cfg.dataloader, cfg.evaluation\n"
        f"day = dataloader.train.dataset[0]\n{lines}\n",
        encoding="utf-8",
    )
    return str(file)


ACCEPTED = {
    "day.label_map = CITYSCAPES_IDS": ("dataloader.train.dataset.0.label_map", CITYSCAPES_IDS),
    "day.update(folding=CAMVID)": ("dataloader.train.dataset.0.folding", CAMVID),
    "day.label_map = L(LabelMap)(name='x', ids={3: 0})": (
        "dataloader.train.dataset.0.label_map",
        LabelMap("x", {3: 0}),
    ),
    "day.label_map = L(functools.partial(LabelMap, name='x'))(ids={3: 0})": (
        "dataloader.train.dataset.0.label_map",
        LabelMap("x", {3: 0}),
    ),
    "evaluation.protocol = Protocol('mine', long_side=96)": (
        "evaluation.protocol",
        Protocol("mine", long_side=96),
    ),
}
REFUSED = {
    "day.label_map = CAMVID": "dataset.0.label_map must be a LazyCall that makes a LabelMap",
    "day.label_map = L(Protocol)(name='x')": "must be a LazyCall that makes a LabelMap",
    "day.folding = {'name': 'x'}": "dataset.0.folding must be a LazyCall that makes a Folding",
    "day.label_map = [0, 1]": "dataset.0.label_map must be a LazyCall that makes a LabelMap",
    "day.label_map = print": "dataset.0.label_map must be a LazyCall that makes a LabelMap",
    "day.name = CAMVID": "dataset.0.name must be text",
    "day.label_map = LabelMap": "LabelMap also needs 'name'",
    "day.nope = CAMVID": "register_folder has no argument 'nope'",
    "train.ema = Protocol('x')": "train.ema must be a finite number",
    "train.output_dir = CAMVID": "train.output_dir must be text",
    "evaluation.protocol = CAMVID": "evaluation.protocol must be a LazyCall that makes a Protocol",
    "optimizer = functools.partial(print)": "lacks optimizer",
    "day.label_map = {'_target_': 'no.such'}": "dataset.0.label_map: 'no.such' does not exist",
    "@dataclass(frozen=True)\nclass Mine(LabelMap): pass\nday.label_map = L(Mine)(name='x')": (
        "dataset.0.label_map: 'builtins.Mine' does not exist: write a dataclass of a "
        "config file as LazyCall(functools.partial(Mine))(...)"
    ),
    "def by_position(name, /): pass\nday.label_map = L(by_position)()": (
        "dataset.0.label_map: by_position accepts 'name' only by position"
    ),
}


@pytest.mark.parametrize("lines", ACCEPTED)
def test_object_in_a_config_file_is_accepted(tmp_path, lines):
    key, expected = ACCEPTED[lines]
    cfg = load_config(config_with(tmp_path, lines), [f"dataloader.streets={tmp_path}"])
    assert instantiate(OmegaConf.select(cfg, key)) == expected
    assert check_same_run(run_settings(cfg), cfg, source="a.pth") == []


@pytest.mark.parametrize("lines", REFUSED)
def test_object_of_another_kind_is_refused_before_building(tmp_path, lines):
    with pytest.raises(ValueError) as refusal:
        load_config(config_with(tmp_path, lines), [])
    assert REFUSED[lines] in str(refusal.value)


def test_resume_with_another_object_is_refused(tmp_path):
    one, other = (
        load_config(config_with(tmp_path, f"day.label_map = {ids}"), [])
        for ids in ("CITYSCAPES_IDS", "TRAIN_IDS")
    )
    with pytest.raises(ValueError, match=r"a\.pth cannot be resumed with .*label_map"):
        check_same_run(run_settings(one), other, source="a.pth")


def test_resume_with_the_default_written_out_is_no_change(tmp_path):
    before = run_settings(load_config(config_with(tmp_path, ""), []))
    cfg = load_config(config_with(tmp_path, "day.label_map = TRAIN_IDS"), [])
    assert check_same_run(before, cfg, source="a.pth") == []


def test_resume_with_another_partial_or_function_is_refused():
    model = {"model": {"function": functools.partial(sorted, reverse=True)}}
    cfg = OmegaConf.create(model, flags={"allow_objects": True})
    before = {"model.function": "partial(sorted, reverse=True)"}
    assert run_settings(cfg)["model.function"] == before["model.function"]


def test_config_file_with_object_that_cannot_be_stored_is_refused(tmp_path):
    lines = "from recyclelora.data.datasets import get_dataset\n"
    lines += "day.label_map = get_dataset('cityscapes_val')"
    with pytest.raises(
        ValueError, match="replace an object that a config cannot store by a LazyCall"
    ):
        read_config(config_with(tmp_path, lines))


def test_targets_get_plain_lists_and_dictionaries():
    arguments = instantiate(L(keep)(sizes=[1, {"a": [2]}], **{"value": {"b": 3}}))
    assert type(arguments["sizes"]) is list and type(arguments["sizes"][1]) is dict
    assert type(arguments["value"]) is dict


def test_partial_is_a_target_of_a_call():
    cfg = load_config("demo", [])
    cfg.dataloader.train.dataset = [
        L(functools.partial(register_folder, label_map=TRAIN_IDS))(name="x", images="a", labels="b")
    ]
    check_config(cfg)
    assert instantiate(cfg.dataloader.train.dataset) == ["x"]
