"""SoMA, GTAV + SYNTHIA + UrbanSyn -> Cityscapes, BDD100K, Mapillary: Table 3.

The published settings do not average the weights.
"""

from .common.settings import gsu2cbm
from .soma_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.update(output_dir="output/soma_dinov2l_gsu2cbm", ema=None)
dataloader = gsu2cbm()
