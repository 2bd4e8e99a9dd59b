"""Adapters that differ from their initial values, as after a training."""

import torch
from torch import nn

from recyclelora.adapters import adapter_parameters


@torch.no_grad()
def learn(model: nn.Module, scale: float = 0.2) -> None:
    """Add Gaussian noise to all factors."""
    for group in adapter_parameters(model):
        for parameter in group.values():
            parameter.add_(scale * torch.randn_like(parameter))
