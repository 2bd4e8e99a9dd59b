"""SoMA on EVA-02-L: Table 7. The q, k and v of EVA-02 are already separate linear layers.

The authors did not publish a configuration for EVA-02, so the settings are those for DINOv2-L.
"""

from .common.eva02 import eva02_l
from .soma_dinov2l_g2cbm import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/soma_eva02l_g2cbm"
model.backbone.module.update(module=eva02_l, weights="eva02_vitl14to16")
