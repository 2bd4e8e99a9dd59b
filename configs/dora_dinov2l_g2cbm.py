"""DoRA (Liu et al., 2024): magnitude and direction of every weight are trained separately.

The paper does not give a rank. With rank 36, the adapters have as many parameters as RecycleLoRA's
32 + 4 (14,155,776). The magnitudes have 221,184 more. Alpha is the rank, so the scaling is 1, as
for LoRA.
"""

from detectron2.config import LazyCall as L

from recyclelora.baselines import dora

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/dora_dinov2l_g2cbm"
model.backbone = L(dora)(module=model.backbone.module, rank=36, alpha=36.0)
optimizer.params.rules.backbone = dict(lr_mult=1.0, decay_mult=0.0)  # like a main adapter
