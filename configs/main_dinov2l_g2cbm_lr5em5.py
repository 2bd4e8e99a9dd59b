"""The main adapter alone at 5e-5; the head keeps its 1e-4: Table 6."""

from .common.optimizer import adapter_rate
from .main_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/main_dinov2l_g2cbm_lr5em5"
adapter_rate(optimizer, "main", 0.5)
