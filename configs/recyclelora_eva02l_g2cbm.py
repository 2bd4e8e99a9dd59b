"""GTAV -> Cityscapes, BDD100K, Mapillary with EVA-02-L: the paper's Table 7."""

from .common.eva02 import eva02_l
from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_eva02l_g2cbm"
# The published configuration uses the authors' file for patch 16. "eva02_vitl14" works too.
model.backbone.module.module = eva02_l
model.backbone.module.weights = "eva02_vitl14to16"
