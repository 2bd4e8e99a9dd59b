"""Minor and major singular directions instead of RRQR's: Table 12."""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_g2cbm_svd"
model.backbone.init = "svd"
