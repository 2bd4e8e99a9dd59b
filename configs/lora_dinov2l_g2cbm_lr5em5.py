"""LoRA at 5e-5; the head keeps its 1e-4: Table 6."""

from .common.optimizer import adapter_rate
from .lora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/lora_dinov2l_g2cbm_lr5em5"
adapter_rate(optimizer, "main", 0.5)
