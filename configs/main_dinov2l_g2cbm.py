"""The main adapter alone: Table 5, second row, and Table 6."""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/main_dinov2l_g2cbm"
model.backbone.r_sub = 0
