"""The frozen backbone: only the head is trained."""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/frozen_dinov2l_g2cbm"
model.backbone.update(r_main=0, r_sub=0)
