"""Adapters that differ from their initial values, as after training."""

import warnings

import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import activate_pair, adapter_parameters, add_pair


@torch.no_grad()
def learn(model: nn.Module, scale: float = 0.2) -> None:
    """Add Gaussian noise to all factors."""
    for group in adapter_parameters(model):
        for parameter in group.values():
            parameter.add_(scale * torch.randn_like(parameter))


def three_pairs(model: nn.Module, **settings) -> nn.Module:
    """Adapt a model with trained pairs of different ranks, scalings and initialisers.

    They are called default, which is active, night and rain; ``settings`` are those of default.
    """
    adapt(model, 4, 2, alpha=2.0, **settings)
    learn(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*optimisers")
        for name, own in {
            "night": {"r_main": 2, "r_sub": 3, "init": "svd"},
            "rain": {"r_main": 3, "r_sub": 0, "alpha": 3.0, "sparse_a": True},
        }.items():
            add_pair(model, name, **own)
            activate_pair(model, name)
            learn(model)
        activate_pair(model, "default")
    return model
