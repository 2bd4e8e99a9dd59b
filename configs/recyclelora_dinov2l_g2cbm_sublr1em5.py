"""The sub adapter at 1e-5, a tenth of the main one's rate: Table 11."""

from .common.optimizer import adapter_rate
from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_g2cbm_sublr1em5"
adapter_rate(optimizer, "sub", 0.1)
