"""Real to real with sub rank 4: Table 10."""

from .recyclelora_dinov2l_c2bm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_c2bm_r32_4"
model.backbone.r_sub = 4
