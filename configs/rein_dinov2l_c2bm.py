"""Rein, Cityscapes -> BDD100K, Mapillary: Table 4."""

from .common.settings import c2bm
from .rein_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.output_dir = "output/rein_dinov2l_c2bm"
dataloader = c2bm()
