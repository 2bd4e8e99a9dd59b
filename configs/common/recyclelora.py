"""The paper's model: an adapted DINOv2 with a Mask2Former head (Table 8)."""

from detectron2.config import LazyCall as L

from recyclelora import adapt
from recyclelora.backbone import load_weights
from recyclelora.mask2former import build_segmentor

from .dinov2 import dinov2_l

model = L(build_segmentor)(
    backbone=L(adapt)(
        module=L(load_weights)(module=dinov2_l, weights="dinov2_vitl14"),
        r_main=32,
        r_sub=4,
        alpha=1.0,
        init="rrqr",
    ),
    num_classes=19,
    hidden_dim=256,
    nheads=8,
    enc_layers=6,
    enc_dim_feedforward=1024,
    dec_layers=9,
    dec_dim_feedforward=2048,
    num_queries=100,
    num_points=12544,
)
