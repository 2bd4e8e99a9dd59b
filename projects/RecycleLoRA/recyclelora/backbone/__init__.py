"""DINOv2, EVA-02 and any other ViT as Detectron2 backbones, and the loader of their weights."""

from .any_vit import AnyViT
from .eva02 import Eva02VisionTransformer
from .hugging_face_vit import hugging_face_vit
from .load import load_weights
from .presets import dinov2_vit
from .pyramid import feature_pyramid
from .resample import resample_patch_kernel, resample_position_embedding
from .timm_vit import timm_vit
from .vit import DinoVisionTransformer
from .weights import WEIGHTS

__all__ = [
    "WEIGHTS",
    "AnyViT",
    "DinoVisionTransformer",
    "Eva02VisionTransformer",
    "dinov2_vit",
    "feature_pyramid",
    "hugging_face_vit",
    "load_weights",
    "resample_patch_kernel",
    "resample_position_embedding",
    "timm_vit",
]
