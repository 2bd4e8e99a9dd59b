"""GTAV + SYNTHIA -> Cityscapes, BDD100K, Mapillary with DINOv2-L: Table 3, second setting."""

from .common.settings import gs2cbm
from .recyclelora_dinov2l_g2cbm import evaluation, model, optimizer, schedule, train

train.output_dir = "output/recyclelora_dinov2l_gs2cbm"
dataloader = gs2cbm()
