"""A small DINOv2 and a small EVA-02 for every baseline."""

import pytest

from recyclelora.backbone import DinoVisionTransformer, Eva02VisionTransformer

SIZES = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}


@pytest.fixture(params=[DinoVisionTransformer, Eva02VisionTransformer])
def vit(request):
    """``vit()`` returns a small model with random weights."""
    return lambda: request.param(**SIZES)
