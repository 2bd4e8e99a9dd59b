"""A tiny DINOv2, its features, and its weights in a file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recyclelora.backbone import DinoVisionTransformer

TINY = {
    "img_size": 56,
    "patch_size": 14,
    "embed_dim": 24,
    "depth": 4,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "init_values": 0.5,
}


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Set all parameters to random numbers, so that no confusion of parameters goes unnoticed."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


@pytest.fixture
def tiny():
    """``tiny(patch_size=16, ...)``: a small ViT with random weights."""

    def build(**overrides) -> DinoVisionTransformer:
        return randomised(DinoVisionTransformer(**{**TINY, **overrides}))

    return build


@pytest.fixture
def save() -> Callable[[dict, Path], Path]:
    """``save(tensors, path)`` writes tensors in the format of the path's suffix."""

    def save_as(tensors: dict, path: Path) -> Path:
        if path.suffix == ".safetensors":
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        else:
            torch.save(tensors, path)
        return path

    return save_as


@pytest.fixture
def features() -> Callable[[DinoVisionTransformer], torch.Tensor]:
    """``features(model)``: the flattened pyramid of a fixed wide image."""
    images = torch.randn(1, 3, 112, 224, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def flat(model: DinoVisionTransformer) -> torch.Tensor:
        return torch.cat([feature.flatten() for feature in model.eval()(images).values()])

    return flat
