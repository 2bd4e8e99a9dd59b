"""Rein, GTAV + SYNTHIA -> Cityscapes, BDD100K, Mapillary: Table 3."""

from .common.settings import gs2cbm
from .rein_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.output_dir = "output/rein_dinov2l_gs2cbm"
dataloader = gs2cbm()
