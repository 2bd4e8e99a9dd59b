"""Full fine-tuning, GTAV + SYNTHIA + UrbanSyn -> Cityscapes, BDD100K, Mapillary: Table 3."""

from .common.settings import gsu2cbm
from .full_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.output_dir = "output/full_dinov2l_gsu2cbm"
dataloader = gsu2cbm()
