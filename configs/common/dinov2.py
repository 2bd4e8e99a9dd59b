"""DINOv2 with patches of 16 pixels for images of 512 pixels, without weights."""

from detectron2.config import LazyCall as L

from recyclelora.backbone import DinoVisionTransformer, presets

size = dict(img_size=512, patch_size=16, checkpointing="${train.checkpointing}")
dinov2_s = L(DinoVisionTransformer)(**size, **presets.VIT_S, out_indices=[3, 5, 7, 11])
dinov2_b = L(DinoVisionTransformer)(**size, **presets.VIT_B, out_indices=[3, 5, 7, 11])
dinov2_l = L(DinoVisionTransformer)(**size, **presets.VIT_L, out_indices=[7, 11, 15, 23])
