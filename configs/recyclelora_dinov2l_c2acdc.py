"""Cityscapes -> ACDC's fog, night, rain and snow: not in the paper, settings of real to real."""

from .common.settings import c2acdc
from .recyclelora_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_c2acdc"
dataloader = c2acdc()
model.backbone.r_sub = 2
