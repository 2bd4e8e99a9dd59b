"""The sub adapter alone at 1e-4, the head's rate: Table 6."""

from .common.optimizer import adapter_rate
from .sub_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/sub_dinov2l_g2cbm_sublr1em4"
adapter_rate(optimizer, "sub", 1.0)
