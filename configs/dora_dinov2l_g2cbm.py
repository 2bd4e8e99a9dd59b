"""DoRA (Liu et al., 2024): magnitude and direction of every weight learn apart.

The paper gives no rank: 36 has the adapters of RecycleLoRA's 32 + 4 (14,155,776 parameters), and
the magnitudes come on top (221,184). Alpha is the rank, so the scaling is 1, as for LoRA.
"""

from detectron2.config import LazyCall as L

from recyclelora.baselines import dora

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/dora_dinov2l_g2cbm"
model.backbone = L(dora)(module=model.backbone.module, rank=36, alpha=36.0)
optimizer.params.rules.backbone = dict(lr_mult=1.0, decay_mult=0.0)  # as a main adapter
