"""Main rank 16, sub rank 4: Table 9."""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_g2cbm_r16_4"
model.backbone.update(r_main=16, r_sub=4)
