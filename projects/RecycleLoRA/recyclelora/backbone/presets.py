"""The sizes in which backbones were released: DINOv2 with and without registers, EVA-02."""

from typing import Any

from .eva02 import Eva02VisionTransformer
from .vit import DinoVisionTransformer


def _dinov2(registers: bool, overrides: dict[str, Any], **size: Any) -> DinoVisionTransformer:
    released = {"img_size": 518, "patch_size": 14, "init_values": 1.0, **size}
    if registers:
        released.update(num_register_tokens=4, interpolate_antialias=True, interpolate_offset=0.0)
    return DinoVisionTransformer(**{**released, **overrides})


def dinov2_vits(*, registers: bool = False, **overrides: Any) -> DinoVisionTransformer:
    """ViT-S: 384 wide, 12 blocks, 6 heads. ``overrides`` go to :class:`DinoVisionTransformer`.

    As released: patch 14 on 518 pixels. A segmentor wants ``patch_size=16, img_size=512``.
    """
    return _dinov2(registers, overrides, embed_dim=384, depth=12, num_heads=6)


def dinov2_vitb(*, registers: bool = False, **overrides: Any) -> DinoVisionTransformer:
    """ViT-B: 768 wide, 12 blocks, 12 heads; otherwise as :func:`dinov2_vits`."""
    return _dinov2(registers, overrides, embed_dim=768, depth=12, num_heads=12)


def dinov2_vitl(*, registers: bool = False, **overrides: Any) -> DinoVisionTransformer:
    """ViT-L: 1024 wide, 24 blocks, 16 heads; otherwise as :func:`dinov2_vits`."""
    return _dinov2(registers, overrides, embed_dim=1024, depth=24, num_heads=16)


def dinov2_vitg(*, registers: bool = False, **overrides: Any) -> DinoVisionTransformer:
    """ViT-g: 1536 wide, 40 blocks, 24 heads, SwiGLU; otherwise as :func:`dinov2_vits`."""
    return _dinov2(registers, overrides, embed_dim=1536, depth=40, num_heads=24, ffn_layer="swiglu")


def eva02_vitb(**overrides: Any) -> Eva02VisionTransformer:
    """EVA-02-B: 768 wide, 12 blocks, 12 heads. ``overrides`` go to Eva02VisionTransformer.

    As released: patch 14 on 224 pixels. A segmentor wants ``patch_size=16, img_size=512``.
    """
    return Eva02VisionTransformer(**{"embed_dim": 768, "depth": 12, "num_heads": 12, **overrides})


def eva02_vitl(**overrides: Any) -> Eva02VisionTransformer:
    """EVA-02-L: 1024 wide, 24 blocks, 16 heads; otherwise as :func:`eva02_vitb`."""
    return Eva02VisionTransformer(**{"embed_dim": 1024, "depth": 24, "num_heads": 16, **overrides})
