"""Overrides reach what the config has or its targets accept, and nothing else."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import nn

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
