"""Mask2Former (Cheng et al., CVPR 2022) for semantic segmentation, in plain PyTorch."""

from .build import build_segmentor
from .criterion import SetCriterion
from .head import MaskFormerHead
from .losses import loss_weights
from .matcher import HungarianMatcher
from .meta_arch import MaskFormer
from .ms_deform_attn import MSDeformAttn, ms_deform_attn
from .pixel_decoder import MSDeformAttnPixelDecoder
from .transformer_decoder import MultiScaleMaskedTransformerDecoder

__all__ = [
    "HungarianMatcher",
    "MSDeformAttn",
    "MSDeformAttnPixelDecoder",
    "MaskFormer",
    "MaskFormerHead",
    "MultiScaleMaskedTransformerDecoder",
    "SetCriterion",
    "build_segmentor",
    "loss_weights",
    "ms_deform_attn",
]
