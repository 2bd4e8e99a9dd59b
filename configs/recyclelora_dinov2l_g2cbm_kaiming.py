"""A Kaiming-uniform, B zero in both adapters: Table 12."""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_g2cbm_kaiming"
model.backbone.init = "kaiming"
