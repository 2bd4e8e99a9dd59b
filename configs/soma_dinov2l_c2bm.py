"""SoMA, Cityscapes -> BDD100K, Mapillary: Table 4.

The published settings are a batch size of 8, 1,500 iterations of warm-up, and averaging from
iteration 20,000.
"""

from .common.settings import c2bm
from .soma_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.update(output_dir="output/soma_dinov2l_c2bm", ema=dict(decay=0.9998, start=20_000))
schedule.warmup = 1_500
dataloader = c2bm()
dataloader["train"].total_batch_size = 8
