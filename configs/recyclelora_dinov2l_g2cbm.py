"""GTAV -> Cityscapes, BDD100K, Mapillary with DINOv2-L: the paper's Table 3, first setting.

This is also the row of the full method in Tables 5, 9, 11 and 12. All other configs of the paper
contain their differences from this one.
"""

from detectron2.config import LazyCall as L

from recyclelora.evaluation import paper

from .common.optimizer import optimizer, schedule
from .common.recyclelora import model
from .common.settings import g2cbm
from .common.train import train

train.output_dir = "output/recyclelora_dinov2l_g2cbm"
dataloader = g2cbm()
evaluation = dict(protocol=L(paper)(), checkpoint=None, save_predictions=None, temperature=None)
