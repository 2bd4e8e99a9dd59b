"""Feature changes: only a trained adapter changes features, and the colours are reproducible."""

import numpy as np
import pytest
import torch

from recyclelora import adapt
from recyclelora.adapters import adapted_layers
from recyclelora.analysis.features import block_paths, feature_changes, principal_colors
from recyclelora.backbone import DinoVisionTransformer


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    vit = DinoVisionTransformer(img_size=64, patch_size=16, embed_dim=24, depth=4, num_heads=2)
    return adapt(vit, r_main=3, r_sub=1).eval()


def test_only_the_trained_adapter_changes_features(backbone):
    for layer in adapted_layers(backbone).values():
        layer.lora_B_main.data += 0.1
    images = torch.randn(2, 3, 64, 96)
    changes = feature_changes(backbone, backbone, images, block_paths(backbone)[-1])
    assert changes["main"].shape == (2, 4, 6, 24)
    assert changes["main"].abs().max() > 1e-3
    assert changes["sub"].abs().max() == 0


def test_block_paths_name_every_block_once(backbone):
    assert block_paths(backbone) == [f"blocks.{i}" for i in range(4)]


def test_colors_ignore_offset_and_sign_of_svd():
    torch.manual_seed(0)
    features = torch.randn(4, 6, 8)
    colors = principal_colors(features)
    assert colors.shape == (4, 6, 3) and colors.min() == 0 and colors.max() == 1
    np.testing.assert_allclose(principal_colors(features + 5), colors, atol=1e-5)


def test_constant_features_are_grey():
    assert (principal_colors(torch.ones(2, 3, 8)) == 0.5).all()
