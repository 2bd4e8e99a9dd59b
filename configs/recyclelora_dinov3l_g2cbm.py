"""GTAV -> Cityscapes, BDD100K, Mapillary with DINOv3-L of timm: an example for other ViTs."""

from detectron2.config import LazyCall as L

from recyclelora.backbone import presets, timm_vit

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov3l_g2cbm"
model.backbone.module.module = L(timm_vit)(
    name="vit_large_patch16_dinov3.lvd1689m",
    img_size=512,
    checkpointing="${train.checkpointing}",
    **presets.VIT_L,
    out_indices=[7, 11, 15, 23],
)
model.backbone.module.weights = "pretrained"  # timm downloads them; a file is possible too
