"""The sub adapter at 1e-4, as fast as the main one: Table 11."""

from .common.optimizer import adapter_rate
from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_g2cbm_sublr1em4"
adapter_rate(optimizer, "sub", 1.0)
