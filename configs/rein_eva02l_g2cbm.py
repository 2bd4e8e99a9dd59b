"""Rein on EVA-02-L: Table 7."""

from .common.eva02 import eva02_l
from .rein_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/rein_eva02l_g2cbm"
model.backbone.module.update(module=eva02_l, weights="eva02_vitl14to16")
