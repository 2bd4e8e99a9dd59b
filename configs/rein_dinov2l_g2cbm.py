"""Rein as published (Wei et al., 2024): 100 tokens of rank 16 per block, linked to the queries.

It has 2,990,081 parameters with the learning rate of the head. Tokens and scale have no weight
decay, and the decay of other parameters is constant.
"""

from detectron2.config import LazyCall as L

from recyclelora.baselines import Rein
from recyclelora.engine import Poly

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, train

train.output_dir = "output/rein_dinov2l_g2cbm"
model.backbone = L(Rein)(
    module=model.backbone.module,
    num_tokens="${model.num_queries}",
    rank=16,
    query_dim="${model.hidden_dim}",
)
model.learned_queries = False
optimizer.params.rules.backbone.lr_mult = 1.0
for part in ("backbone.tokens_", "backbone.scale"):
    optimizer.params.rules[part] = dict(lr_mult=1.0, decay_mult=0.0)
schedule = L(Poly)(iterations="${train.max_iter}", power=0.9)
