"""The baselines' configs: counts and groups at full size, and gradients of trained parameters."""

import pytest
import torch
from detectron2.config import instantiate

from ..support.paper_configs import CONFIG_NAMES, load, output_dir
from ..support.tiny_overrides import tiny

R32_4 = 14_155_776  # trainable parameters of RecycleLoRA in the backbone
# Parameters of DINOv2-L without the final norm and the mask token: tokens, patch kernel, blocks.
BLOCK = 12 * 1024**2 + 15 * 1024  # weights; biases 9, norms 4, layer scales 2
DINOV2_L = (1 + 1 + 32 * 32) * 1024 + (3 * 16 * 16 + 1) * 1024 + 24 * BLOCK

# Rank 16 on the 16 later blocks: q, k, v, proj (dim, dim), fc1, fc2 between dim and 4 dim; biases.
SOMA = 16 * (16 * (4 * 2 + 2 * 5) * 1024 + 9 * 1024)
# EVA-02's SwiGLU is 2,730 wide; its keys have no bias, and its three linears there have.
SOMA_EVA02 = 16 * (16 * (4 * 2048 + 3 * (1024 + 2730)) + 3 * 1024 + 2 * 2730 + 1024)
# Rein's 2.99 M: the factors of 24 blocks' 100 tokens, a scale, two linears, the queries' two.
REIN = 24 * 16 * (100 + 1024) + 1 + 2 * 1025 * 1024 + 1025 * 256 + (3 * 256 + 1) * 256
# Trainable parameters of the backbone, and (learning rate, weight decay) of its groups.
TRAINED = {
    "frozen_dinov2l_g2cbm": (0, set()),
    "full_dinov2l_g2cbm": (DINOV2_L, {(1e-6, 0.05)}),
    "lora_dinov2l_g2cbm": (R32_4, {(1e-4, 0.0)}),
    "lora_dinov2l_g2cbm_lr5em5": (R32_4, {(5e-5, 0.0)}),
    "pissa_dinov2l_g2cbm": (R32_4, {(1e-4, 0.0)}),
    "dora_dinov2l_g2cbm": (R32_4 + 24 * 9 * 1024, {(1e-4, 0.0)}),
    "soma_dinov2l_g2cbm": (SOMA, {(5e-5, 0.05)}),
    "soma_eva02l_g2cbm": (SOMA_EVA02, {(5e-5, 0.05)}),
    "rein_dinov2l_g2cbm": (REIN, {(1e-4, 0.0), (1e-4, 0.05)}),
    "rein_eva02l_g2cbm": (REIN, {(1e-4, 0.0), (1e-4, 0.05)}),
}
# The same method in another setting.
SETTINGS = {
    "full_dinov2l_g2cbm": ["full_dinov2l_gsu2cbm"],
    "soma_dinov2l_g2cbm": [f"soma_dinov2l_{s}" for s in ("gs2cbm", "gsu2cbm", "c2bm")],
    "rein_dinov2l_g2cbm": [f"rein_dinov2l_{s}" for s in ("gs2cbm", "c2bm")],
}


@pytest.mark.parametrize(("name", "parameters", "groups"), [(n, *t) for n, t in TRAINED.items()])
def test_backbone_trains_the_expected_parameters(name, parameters, groups):
    cfg = load(name)
    assert output_dir(name) == (
        f"output/{name}" if name in CONFIG_NAMES else f"output/paper/{name}_seed0"
    )
    with torch.device("meta"):
        model = instantiate(cfg.model)
    trained = [p for p in model.backbone.parameters() if p.requires_grad and p.numel()]
    assert sum(p.numel() for p in trained) == parameters
    ids = {id(p) for p in trained}
    cfg.optimizer.params.model = model
    assert groups == {
        (round(g["initial_lr"], 12), g["initial_weight_decay"])
        for g in instantiate(cfg.optimizer).param_groups
        if ids & {id(p) for p in g["params"]}
    }


@pytest.mark.parametrize("name", TRAINED)
def test_trainable_parameter_gets_a_gradient(name):
    """DDP therefore need not search for parameters that a step does not use."""
    cfg = tiny(load(name))
    model = instantiate(cfg.model).train()
    label = torch.randint(0, 19, (64, 96))
    losses = model([{"image": torch.rand(3, 64, 96) * 255, "sem_seg": label}])
    sum(losses.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), parameter_name


@pytest.mark.parametrize(("name", "settings"), SETTINGS.items())
def test_other_setting_has_the_same_model_and_optimizer(name, settings):
    base = load(name)
    for other in map(load, settings):
        assert other.model == base.model and other.optimizer == base.optimizer
        assert other.dataloader != base.dataloader


def test_soma_averages_and_warms_up_in_some_settings():
    settings = {s: load(f"soma_dinov2l_{s}") for s in ("g2cbm", "gs2cbm", "gsu2cbm", "c2bm")}
    starts = {s: cfg.train.ema and cfg.train.ema.start for s, cfg in settings.items()}
    assert starts == {"g2cbm": 12_000, "gs2cbm": None, "gsu2cbm": None, "c2bm": 20_000}
    warmups = {s: instantiate(cfg.schedule).warmup for s, cfg in settings.items()}
    assert warmups == {"g2cbm": 0, "gs2cbm": 0, "gsu2cbm": 0, "c2bm": 1_500}
