"""LoRA (Hu et al., 2022): one adapter, A Kaiming-uniform and B zero, at the main learning rate.

The paper does not give a rank. Rank 36 has as many parameters as RecycleLoRA's 32 + 4 (14,155,776).
Alpha is the rank, as in the LoRA paper, so the scaling is 1.
"""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/lora_dinov2l_g2cbm"
model.backbone.update(r_main=36, r_sub=0, alpha=36.0, init="kaiming")
