"""Overrides that make every config small: a ViT of width 64 and depth 4, and a small head."""

from omegaconf import DictConfig

from recyclelora.config.overrides import apply_overrides

VIT = "model.backbone.module.module"
TINY = (
    f"model.backbone.module.weights=null {VIT}.img_size=128 {VIT}.embed_dim=64 {VIT}.depth=4 "
    f"{VIT}.num_heads=2 {VIT}.out_indices=[0,1,2,3] "
    "model.hidden_dim=32 model.nheads=2 model.enc_layers=1 model.enc_dim_feedforward=64 "
    "model.dec_layers=2 model.dec_dim_feedforward=64 model.num_queries=20 model.num_points=128 "
    "dataloader.train.mapper.crop=128 dataloader.train.total_batch_size=2 "
    "dataloader.train.num_workers=0 "
    "train.max_iter=1 train.device=cpu train.picture_period=0"
).split()
"""Of the backbone, the head, the crop and the run; evaluation is left to each test."""


def tiny(cfg: DictConfig) -> DictConfig:
    """Return ``cfg`` with these overrides; methods for later blocks adapt all but the first."""
    later = ["model.backbone.first_block=1"] if "first_block" in cfg.model.backbone else []
    return apply_overrides(cfg, [*TINY, *later])


def folder(name: str, root: object) -> str:
    """Return ``root/images`` and ``root/labels`` as a dataset for an override."""
    return (
        "{_target_:recyclelora.data.register_folder,"
        f"name:{name},images:'{root}/images',labels:'{root}/labels'}}"
    )
