"""Overrides change keys of the config or arguments of its targets, and nothing else."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import nn

from recyclelora.config.keys import join_names
from recyclelora.config.overrides import apply_overrides
from recyclelora.evaluation import multi_scale, native, paper


@pytest.fixture
def config():
    return OmegaConf.create(
        {
            "train": {"max_iter": 10, "output_dir": "out", "amp": {"dtype": "float32"}},
            "model": L(nn.Linear)(in_features=2, out_features="${train.max_iter}"),
            "layers": [{"size": 1}, {"size": 2}],
        },
        flags={"allow_objects": True},
    )


def test_override_known_key_sets_value(config):
    overrides = [
        "train.max_iter=3",
        "train.amp.dtype=bfloat16",
        "layers.1.size=9",
        "train.output_dir=a/b",
    ]
    changed = apply_overrides(config, overrides)
    assert changed.train.max_iter == 3
    assert changed.model.out_features == 3
    assert changed.train.amp.dtype == "bfloat16"
    assert changed.layers[1].size == 9


def test_override_argument_of_target_is_added(config):
    assert apply_overrides(config, ["model.bias=False"]).model.bias is False


def test_override_protocol_by_name_takes_arguments():
    config = OmegaConf.create(
        {"evaluation": {"protocol": L(native)(long_side=96), "save_predictions": None}},
        flags={"allow_objects": True},
    )
    overrides = ["evaluation.protocol=paper", "evaluation.protocol.crop=1024"]
    changed = apply_overrides(config, [*overrides, "evaluation.protocol.scales=[0.5,1]"])
    assert instantiate(changed.evaluation.protocol) == paper(crop=1024, scales=(0.5, 1))
    changed = apply_overrides(changed, ["evaluation.protocol=multi_scale"])
    assert instantiate(changed.evaluation.protocol) == multi_scale()


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.max_iters=3", "train.max_iter"),
        ("max_iter=3", "train.max_iter"),
        ("train.amp.dtyp=x", "train.amp.dtype"),
        ("model.in_feature=4", "model.in_features"),
    ],
)
def test_override_unknown_key_names_the_nearest(config, override, nearest):
    with pytest.raises(ValueError, match=f"unknown key .*nearest known key is '{nearest}'"):
        apply_overrides(config, [override])


def test_override_malformed_is_refused(config):
    with pytest.raises(ValueError, match=r"unknown key 'train\.max_iter\.x'"):
        apply_overrides(config, ["train.max_iter.x=1"])
    with pytest.raises(ValueError, match="form key=value"):
        apply_overrides(config, ["train.max_iter"])
    with pytest.raises(ValueError, match="cannot apply"):
        apply_overrides(config, ["train.max_iter=[1"])


def test_override_after_unresolvable_interpolation_is_applied(config):
    overrides = ["train.max_iter=${train.nowhere}", "model.bias=False", "train.max_iter=3"]
    assert apply_overrides(config, overrides).model.out_features == 3
    with pytest.raises(ValueError, match=r"nearest known key is 'train\.max_iter'"):
        apply_overrides(config, ["train.max_iter=${train.nowhere}", "train.max_iters=3"])


NAMES = ["streets night", "v1.5", "a=b", "it's", 'the "old"', " spaces ", "back\\slash", "é", "3"]


@pytest.mark.parametrize("name", NAMES)
def test_override_quoted_name_reaches_its_key(name):
    cfg = OmegaConf.create({"test": {name: {"subset": 1}, "other": 1}})
    key = join_names(["test", name, "subset"])
    assert apply_overrides(cfg, [f"{key}=7"]).test[name].subset == 7
    assert apply_overrides(cfg, [f"{join_names(['test', name])}=null"]).test[name] is None
    assert cfg.test.other == 1


def test_override_name_with_space_needs_no_quotes():
    cfg = OmegaConf.create({"test": {"streets night": {"subset": 1}}})
    for key in ("streets night", "'streets night'", '"streets night"'):
        assert apply_overrides(cfg, [f"test.{key}.subset=7"]).test["streets night"].subset == 7


def test_override_unknown_key_names_the_nearest_in_quotes():
    cfg = OmegaConf.create({"test": {"streets night": 1}})
    with pytest.raises(ValueError, match=r"nearest known key is test\.'streets night'$"):
        apply_overrides(cfg, [r"test.streets\ night=2"])


def test_override_key_that_is_a_number_is_replaced():
    cfg = OmegaConf.create({"ids": {7: 0, 8: 1}})
    assert apply_overrides(cfg, ["ids.7=255"]).ids == {7: 255, 8: 1}


VALUES = {
    "3": 3,
    "1e-4": 1e-4,
    "true": True,
    "null": None,
    "": "",
    "[1,[2,null]]": [1, [2, None]],
    "{}": {},
    "{a:{b:1}}": {"a": {"b": 1}},
    "{'a b': {\"it's\": 1}, 'c:d': ['x:y', {'e.f': 'g, h'}], i j: \"k'l':m\"}": {
        "a b": {"it's": 1},
        "c:d": ["x:y", {"e.f": "g, h"}],
        "i j": "k'l':m",
    },
    "'3'": "3",
    '"a, b"': "a, b",
    "~/runs": "~/runs",
    "$DISK/runs": "$DISK/runs",
    "/data (old)/a=b, c&d#1": "/data (old)/a=b, c&d#1",
    "straße/夜": "straße/夜",
    "1,2": "1,2",
    "a:b;c": "a:b;c",
    "don't": "don't",
}


@pytest.mark.parametrize("text", VALUES)
def test_override_value_replaces_what_was_there(text):
    cfg = OmegaConf.create({"rules": {"main": {"lr": 1}, "sub": {"lr": 2}}})
    assert apply_overrides(cfg, [f"rules={text}"]).rules == VALUES[text]


def test_override_below_an_interpolation_changes_that_key_alone():
    cfg = OmegaConf.create({"a": {"x": 1}, "b": "${a}"})
    changed = apply_overrides(cfg, ["b.x=2"])
    assert (changed.a.x, changed.b.x) == (1, 2)


def test_override_text_with_broken_quotes_or_brackets_is_refused():
    cfg = OmegaConf.create({"a": 1})
    for text in ("[1", "{b:1", "'b", '"b', "[raw]/photos", "${b"):
        with pytest.raises(ValueError, match="cannot apply the override"):
            apply_overrides(cfg, [f"a={text}"])
