"""GTAV -> Cityscapes, BDD100K, Mapillary with DINOv2-L: the paper's Table 3, first setting."""

from detectron2.config import LazyCall as L

from recyclelora.evaluation import paper

from .common.data import test_loader, train_loader
from .common.optimizer import optimizer, schedule
from .common.recyclelora import model
from .common.train import train

train.output_dir = "output/recyclelora_dinov2l_g2cbm"
dataloader = dict(
    train=train_loader("gtav_train"),
    test=dict(
        cityscapes=test_loader("cityscapes_val"),
        bdd100k=test_loader("bdd100k_val"),
        mapillary=test_loader("mapillary_vistas_val"),
    ),
)
evaluation = dict(protocol=L(paper)())
