"""Optimisers, clipping and logging work on the parameters of all pairs, including rank 0."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters

RANKS = [(4, 2), (4, 0), (0, 4)]
OPTIMIZERS = {
    "AdamW": torch.optim.AdamW,
    "Adafactor": torch.optim.Adafactor,
    "Muon": torch.optim.Muon,
    "NAdam, foreach": lambda parameters: torch.optim.NAdam(parameters, foreach=True),
    "AdamW, fused": lambda parameters: torch.optim.AdamW(parameters, fused=True),
}


def build(ranks, **settings):
    model = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
    return adapt(model, *ranks, **settings)


@pytest.mark.parametrize("sparse_a", [False, True])
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_step_moves_every_factor(name, ranks, sparse_a):
    model, x = build(ranks, sparse_a=sparse_a), torch.randn(8, 16)
    main, sub = adapter_parameters(model)
    before = {key: p.detach().clone() for key, p in (main | sub).items()}
    optimizer = OPTIMIZERS[name](p for p in model.parameters() if p.requires_grad)
    model(x).square().sum().backward()
    optimizer.step()
    for key, parameter in (main | sub).items():
        assert parameter.isfinite().all() and not torch.equal(parameter, before[key]), key


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("norm", [2.0, float("inf")])
def test_clipping_limits_the_norm_of_any_ranks(norm, ranks):
    model, x = build(ranks), torch.randn(8, 16)
    model(x).square().sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3, norm)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert nn.utils.get_total_norm(gradients, norm) <= 1.001e-3


@pytest.mark.parametrize("ranks", RANKS)
def test_logged_statistics_of_any_ranks_are_finite(ranks):
    model = build(ranks)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert tensor.numel() and tensor.abs().max().isfinite(), name


@pytest.mark.parametrize("ranks", RANKS)
def test_averaged_model_of_one_state_has_same_output(ranks):
    model, x = build(ranks), torch.randn(8, 16)
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    assert torch.equal(averaged(x), model(x))
    assert torch.equal(copy.deepcopy(averaged)(x), model(x))
