"""Every config and row of the paper at full size, on the meta device: names, counts, groups."""

import re

import pytest
import torch
from detectron2.config import instantiate

from recyclelora.adapters import adapter_parameters
from recyclelora.config.validation import check_config

from ..support.paper_configs import CONFIG_NAMES, NAMES, load, output_dir

METHODS = "recyclelora|main|sub|frozen|full|lora|dora|pissa|soma|rein"
PATTERN = rf"({METHODS})_(dinov2l|dinov3l|eva02l)_(g2cbm|gs2cbm|gsu2cbm|c2bm|c2acdc)(_\w+)?"

CBM = {"cityscapes_val", "bdd100k_val", "mapillary_vistas_val"}
SETTINGS = {  # sources, targets, and whether images are padded with black before normalisation
    "g2cbm": (["gtav_train"], CBM, True),
    "gs2cbm": (["gtav_train", "synthia_train"], CBM, False),
    "gsu2cbm": (["gtav_train", "synthia_train", "urbansyn_train"], CBM, False),
    "c2bm": (["cityscapes_train"], CBM - {"cityscapes_val"}, True),
    "c2acdc": (
        ["cityscapes_train"],
        {f"acdc_{weather}_val" for weather in ("fog", "night", "rain", "snow")},
        True,
    ),
}

# Ranks of main and sub, and the adapters' parameters: the paper's Tables 5, 9 and 10 in full.
ADAPTERS = {
    "recyclelora_dinov2l_g2cbm": (32, 4, 14_155_776),
    "recyclelora_dinov2l_g2cbm_crop1024": (32, 4, 14_155_776),
    "recyclelora_dinov2l_gs2cbm": (32, 4, 14_155_776),
    "recyclelora_dinov2l_gsu2cbm": (32, 4, 14_155_776),
    "recyclelora_dinov2l_c2bm": (32, 2, 13_369_344),
    "recyclelora_dinov2l_c2acdc": (32, 2, 13_369_344),
    "main_dinov2l_g2cbm": (32, 0, 12_582_912),
    "main_dinov2l_g2cbm_lr5em5": (32, 0, 12_582_912),
    "sub_dinov2l_g2cbm": (0, 4, 1_572_864),
    "sub_dinov2l_g2cbm_sublr1em4": (0, 4, 1_572_864),
    "recyclelora_dinov2l_g2cbm_r32_2": (32, 2, 13_369_344),
    "recyclelora_dinov2l_g2cbm_r32_8": (32, 8, 15_728_640),
    "recyclelora_dinov2l_g2cbm_r32_16": (32, 16, 18_874_368),
    "recyclelora_dinov2l_g2cbm_r32_32": (32, 32, 25_165_824),
    "recyclelora_dinov2l_g2cbm_r16_2": (16, 2, 7_077_888),
    "recyclelora_dinov2l_g2cbm_r16_4": (16, 4, 7_864_320),
    "recyclelora_dinov2l_g2cbm_r16_8": (16, 8, 9_437_184),
    "recyclelora_dinov2l_g2cbm_r16_16": (16, 16, 12_582_912),
    "recyclelora_dinov2l_c2bm_r32_4": (32, 4, 14_155_776),
    "recyclelora_dinov2l_g2cbm_sublr1em4": (32, 4, 14_155_776),
    "recyclelora_dinov2l_g2cbm_sublr1em5": (32, 4, 14_155_776),
    "recyclelora_dinov2l_g2cbm_kaiming": (32, 4, 14_155_776),
    "recyclelora_dinov2l_g2cbm_svd": (32, 4, 14_155_776),
    "recyclelora_eva02l_g2cbm": (32, 4, 16_808_256),  # seven matrices per block, not four
    "recyclelora_dinov3l_g2cbm": (32, 4, 14_155_776),
}
RATES = {  # of main and sub, if they differ from the paper
    "main_dinov2l_g2cbm_lr5em5": (5e-5, None),
    "sub_dinov2l_g2cbm_sublr1em4": (None, 1e-4),
    "recyclelora_dinov2l_g2cbm_sublr1em4": (1e-4, 1e-4),
    "recyclelora_dinov2l_g2cbm_sublr1em5": (1e-4, 1e-5),
}
INITS = {"recyclelora_dinov2l_g2cbm_kaiming": "kaiming", "recyclelora_dinov2l_g2cbm_svd": "svd"}


def on_meta(cfg):
    if "_dinov3l_" in cfg.train.output_dir:
        pytest.importorskip("timm", reason="this config's ViT is timm's: pip install it")
    with torch.device("meta"):
        return instantiate(cfg.model)


def count(parameters) -> int:
    return sum(p.numel() for p in parameters)


@pytest.mark.parametrize("name", NAMES)
def test_config_matches_its_name(name):
    """Name, output folder, sources, targets, padding, protocol and Table 8 are consistent."""
    cfg, parts = load(name), re.fullmatch(PATTERN, name)
    assert parts, f"{name} is not METHOD_BACKBONE_SETTING[_VARIANT]"
    check_config(cfg)
    assert output_dir(name) == (
        f"output/{name}" if name in CONFIG_NAMES else f"output/paper/{name}_seed0"
    )
    sources, targets, padded = SETTINGS[parts[3]]
    assert list(cfg.dataloader.train.dataset) == sources
    assert {loader.dataset for loader in cfg.dataloader.test.values()} == targets
    assert all(loader.subset is None for loader in cfg.dataloader.test.values())
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert mapper.pad_to_crop == padded
    protocol = instantiate(cfg.evaluation.protocol)
    assert protocol.name.startswith("paper") and protocol.mode == "slide"
    assert mapper.crop == protocol.crop == (1024 if name.endswith("crop1024") else 512)
    assert cfg.train.max_iter == 40_000 and cfg.train.amp.dtype == "float32"
    batch = 8 if name == "soma_dinov2l_c2bm" else 4
    assert cfg.dataloader.train.total_batch_size == batch and cfg.train.accumulate == 1
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (1e-4, 0.05)
    assert list(cfg.optimizer.betas) == [0.9, 0.999]
    schedule = instantiate(cfg.schedule)
    assert (schedule.iterations, schedule.power) == (40_000, 0.9)
    annealed = parts[1] not in ("full", "rein")  # published without
    assert getattr(schedule, "decay_end", None) == (1e-5 if annealed else None)


@pytest.mark.parametrize("name", NAMES)
def test_trainable_parameter_is_in_one_group(name):
    cfg = load(name)
    model = on_meta(cfg)
    cfg.optimizer.params.model = model
    groups = instantiate(cfg.optimizer).param_groups
    trains = [p for p in model.parameters() if p.requires_grad and p.numel()]  # rank 0: empty
    grouped = [p for group in groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(trains)
    head = {id(p) for p in model.sem_seg_head.parameters()}
    for group in groups:
        in_head = {id(p) in head for p in group["params"]}
        assert in_head == {group["name"].startswith("head")}
        if in_head == {True}:
            assert group["lr"] == 1e-4
    assert next(g for g in groups if g["name"] == "head")["weight_decay"] == 0.05


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_are_those_of_the_paper(name):
    cfg = load(name)
    r_main, r_sub, parameters = ADAPTERS[name]
    adapt = cfg.model.backbone
    assert (adapt.r_main, adapt.r_sub, adapt.alpha) == (r_main, r_sub, 1.0)
    assert adapt.init == INITS.get(name, "rrqr")
    model = on_meta(cfg)
    main, sub = adapter_parameters(model)
    assert count(main.values()) + count(sub.values()) == parameters
    assert count(p for p in model.backbone.parameters() if p.requires_grad) == parameters
    cfg.optimizer.params.model = model
    groups = [g for g in instantiate(cfg.optimizer).param_groups if "adapter" in g["name"]]
    rates = {g["name"]: g["lr"] for g in groups if count(g["params"])}
    expected = RATES.get(name, (1e-4 if r_main else None, 5e-5 if r_sub else None))
    assert (rates.get("main adapter"), rates.get("sub adapter")) == expected
    assert all(g["weight_decay"] == 0 for g in groups)


def test_all_recyclelora_configs_have_checked_ranks():
    ours = {name for name in NAMES if re.match("(recyclelora|main|sub)_", name)}
    assert ours == set(ADAPTERS)


def test_loading_one_config_does_not_change_another():
    before = {name: load(name) for name in NAMES}
    assert {name: load(name) for name in reversed(NAMES)} == before
