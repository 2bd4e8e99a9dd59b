"""Cityscapes -> BDD100K, Mapillary with DINOv2-L: Table 4, and Table 10's rank 2."""

from .common.settings import c2bm
from .recyclelora_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_c2bm"
dataloader = c2bm()
model.backbone.r_sub = 2  # for real to real, see Table 8
