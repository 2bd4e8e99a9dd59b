"""Crops and windows of 1024 pixels: not in the paper, but published by Rein and SoMA."""

from .common.settings import g2cbm
from .recyclelora_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_g2cbm_crop1024"
model.backbone.module.module.img_size = 1024
dataloader = g2cbm(crop=1024)
evaluation.protocol.crop = 1024
