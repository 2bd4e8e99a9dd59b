"""SoMA as published (Yun et al., 2025): rank 16, starting at block 8, 4,866,048 parameters.

Adapters and biases have half the learning rate and the weight decay of the backbone. The query
features have no weight decay. From iteration 12,000, an average of the weights is computed, which
is evaluated.
"""

from detectron2.config import LazyCall as L

from recyclelora.baselines import soma

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/soma_dinov2l_g2cbm"
train.ema = dict(decay=0.9998, start=12_000)
model.backbone = L(soma)(module=model.backbone.module, rank=16, first_block=8)
for factor in ("lora_A_main", "lora_B_main"):
    optimizer.params.rules[factor] = dict(lr_mult=0.5, decay_mult=1.0)
optimizer.params.rules["predictor.query_feat"] = dict(lr_mult=1.0, decay_mult=0.0)
