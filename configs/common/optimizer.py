"""AdamW with the published multipliers, poly learning rate, annealed weight decay (Table 8)."""

import torch
from detectron2.config import LazyCall as L

from recyclelora.engine import PUBLISHED_RULES, PolyWithAnnealedDecay, parameter_groups

optimizer = L(torch.optim.AdamW)(
    params=L(parameter_groups)(
        model=None,  # the run sets it
        lr="${optimizer.lr}",
        weight_decay="${optimizer.weight_decay}",
        rules={key: dict(rule) for key, rule in PUBLISHED_RULES.items()},
    ),
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.05,
)

schedule = L(PolyWithAnnealedDecay)(iterations="${train.max_iter}", power=0.9, decay_end=1e-5)
