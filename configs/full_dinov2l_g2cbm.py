"""Full fine-tuning: all parameters that the features depend on are trained, at 1e-6.

The paper does not give a learning rate. 0.01 times the head's rate, and a constant weight decay,
are the settings of the fine-tuning that SoMA published, whose row the paper quotes.
Deviation: SoMA also froze patch embedding, position embedding and layer scale.
"""

from detectron2.config import LazyCall as L

from recyclelora.baselines import fine_tune
from recyclelora.engine import Poly

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, train

train.output_dir = "output/full_dinov2l_g2cbm"
model.backbone = L(fine_tune)(module=model.backbone.module)
optimizer.params.rules.backbone.lr_mult = 0.01
schedule = L(Poly)(iterations="${train.max_iter}", power=0.9)
