"""DINOv2 and EVA-02 as Detectron2 backbones, and the loader of their pretrained weights."""

from .eva02 import Eva02VisionTransformer
from .load import load_weights
from .presets import dinov2_vitb, dinov2_vitg, dinov2_vitl, dinov2_vits, eva02_vitb, eva02_vitl
from .pyramid import feature_pyramid
from .resample import resample_patch_kernel, resample_position_embedding
from .vit import DinoVisionTransformer
from .weights import WEIGHTS

__all__ = [
    "WEIGHTS",
    "DinoVisionTransformer",
    "Eva02VisionTransformer",
    "dinov2_vitb",
    "dinov2_vitg",
    "dinov2_vitl",
    "dinov2_vits",
    "eva02_vitb",
    "eva02_vitl",
    "feature_pyramid",
    "load_weights",
    "resample_patch_kernel",
    "resample_position_embedding",
]
