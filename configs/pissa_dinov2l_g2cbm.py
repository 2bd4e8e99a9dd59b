"""PiSSA (Meng et al., 2024): one adapter on the largest singular triplets, alpha = rank.

The paper does not give a rank. Rank 36 has as many parameters as RecycleLoRA's 32 + 4 (14,155,776).
The adapter is our sub adapter alone, but it has the main learning rate, 1e-4, like every single
adapter.
"""

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/pissa_dinov2l_g2cbm"
model.backbone.update(r_main=0, r_sub=36, alpha=36.0, init="svd")
for factor in ("lora_A_sub", "lora_B_sub"):
    optimizer.params.rules[factor].lr_mult = 1.0
