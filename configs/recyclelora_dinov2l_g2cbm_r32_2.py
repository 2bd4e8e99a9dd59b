"""Main rank 32, sub rank 2: Table 9."""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_g2cbm_r32_2"
model.backbone.r_sub = 2
