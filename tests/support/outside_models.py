"""Small models of other libraries with random weights, and their inputs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


def timm_vit() -> tuple[nn.Module, Tensor]:
    """Return a ViT of timm, which has a fused ``qkv``, and images."""
    timm = pytest.importorskip("timm")
    options = {"img_size": 32, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 2}
    return timm.models.VisionTransformer(num_classes=7, **options), torch.randn(2, 3, 32, 32)


def hugging_face_dinov2() -> tuple[nn.Module, Tensor]:
    """Return a DINOv2 of transformers, with separate queries, keys and values, and images."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    return transformers.Dinov2Model(config), torch.randn(2, 3, 32, 32)


def hugging_face_gpt2() -> tuple[nn.Module, Tensor]:
    """Return a GPT-2 of transformers, which consists of ``Conv1D`` layers, and tokens."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=48, n_layer=2, n_head=2, vocab_size=64, n_positions=16)
    return transformers.GPT2Model(config), torch.randint(64, (2, 9))


def two_kinds() -> tuple[nn.Module, Tensor]:
    """Return a linear layer followed by a ``Conv1D``, and rows of input."""
    conv1d = pytest.importorskip("transformers").pytorch_utils.Conv1D
    return nn.Sequential(nn.Linear(24, 32), conv1d(20, 32)), torch.randn(5, 24)


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "timm": timm_vit,
    "hugging_face": hugging_face_dinov2,
    "conv1d": hugging_face_gpt2,
    "two_kinds": two_kinds,
}


@torch.no_grad()
def output(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output of ``model`` in eval mode, as one tensor."""
    result = model.eval()(x)
    return result if isinstance(result, Tensor) else result[0]


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest entry of ``expected``."""
    return float((found - expected).abs().max() / expected.abs().max())
