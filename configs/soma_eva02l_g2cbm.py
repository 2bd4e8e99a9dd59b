"""SoMA on EVA-02-L: Table 7. Its q, k and v are linears of their own already.

Its authors publish no configuration for EVA-02: all is as on DINOv2-L.
"""

from .common.eva02 import eva02_l
from .soma_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/soma_eva02l_g2cbm"
model.backbone.module.update(module=eva02_l, weights="eva02_vitl14to16")
