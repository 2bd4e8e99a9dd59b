"""DINOv2 as a Detectron2 backbone, and the loader of its pretrained weights."""

from .load import load_weights
from .presets import dinov2_vitb, dinov2_vitg, dinov2_vitl, dinov2_vits
from .pyramid import feature_pyramid
from .resample import resample_patch_kernel, resample_position_embedding
from .vit import DinoVisionTransformer
from .weights import WEIGHTS

__all__ = [
    "WEIGHTS",
    "DinoVisionTransformer",
    "dinov2_vitb",
    "dinov2_vitg",
    "dinov2_vitl",
    "dinov2_vits",
    "feature_pyramid",
    "load_weights",
    "resample_patch_kernel",
    "resample_position_embedding",
]
