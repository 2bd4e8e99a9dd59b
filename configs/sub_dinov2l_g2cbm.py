"""The sub adapter alone at its 5e-5: Table 5, first row, and Table 6."""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/sub_dinov2l_g2cbm"
model.backbone.r_main = 0
