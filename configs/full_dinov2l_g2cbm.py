"""Full fine-tuning: all of the backbone that the features depend on learns, at 1e-6.

The paper gives no learning rate: 0.01 times the head's, and a weight decay that stays, are those of
the fine-tuning that SoMA published, whose row the paper repeats.
Deviation: that one also froze patch embedding, position embedding and layer scale.
"""

from detectron2.config import LazyCall as L

from recyclelora.baselines import fine_tune
from recyclelora.engine import Poly

from .recyclelora_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, train

train.output_dir = "output/full_dinov2l_g2cbm"
model.backbone = L(fine_tune)(module=model.backbone.module)
optimizer.params.rules.backbone.lr_mult = 0.01
schedule = L(Poly)(iterations="${train.max_iter}", power=0.9)
