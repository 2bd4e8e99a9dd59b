"""The segmentor that the benchmarks train: its sizes, a batch of drawn streets, and one step."""

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.measure import R_MAIN, R_SUB, add_count
from drawn_streets import draw_street
from recyclelora import adapt
from recyclelora.backbone import DinoVisionTransformer, presets
from recyclelora.config import get_config
from recyclelora.mask2former import build_segmentor

VARIANTS = {
    "dense": {"sparse_a": False, "checkpointing": False},
    "sparse": {"sparse_a": True, "checkpointing": False},
    "dense, checkpointing": {"sparse_a": False, "checkpointing": True},
    "sparse, checkpointing": {"sparse_a": True, "checkpointing": True},
}
BACKBONES = {
    "tiny": {"embed_dim": 64, "depth": 6, "num_heads": 2},
    "dinov2_s": presets.VIT_S,
    "dinov2_b": presets.VIT_B,
    "dinov2_l": presets.VIT_L,
}
TINY_HEAD = {
    "hidden_dim": 32, "nheads": 2, "enc_layers": 1, "enc_dim_feedforward": 64,
    "dec_layers": 2, "dec_dim_feedforward": 64, "num_queries": 20, "num_points": 128,
}  # fmt: skip
HEAD_CONFIGS = {"demo": "demo", "full": "recyclelora_dinov2l_g2cbm"}
HEADS = ("tiny", *HEAD_CONFIGS)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NUM_CLASSES = 19


def head_sizes(name: str) -> dict[str, int]:
    """Return the sizes of a head in a shipped config, as keywords of `build_segmentor`."""
    if name == "tiny":
        return TINY_HEAD
    model = get_config(HEAD_CONFIGS[name]).model
    return {key: model[key] for key in TINY_HEAD}


class OurSegmentor(nn.Module):
    """`MaskFormer` on the adapted backbone, with the interface of the baseline."""

    def __init__(self, backbone: DinoVisionTransformer, *, head: dict[str, Any], sparse_a: bool):
        super().__init__()
        adapted = adapt(backbone, r_main=R_MAIN, r_sub=R_SUB, sparse_a=sparse_a)
        self.model = build_segmentor(adapted, NUM_CLASSES, **head)

    @property
    def backbone(self) -> nn.Module:
        return self.model.backbone

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum of all losses."""
        pairs = zip(images, labels, strict=True)
        samples = [{"image": image, "sem_seg": label} for image, label in pairs]
        return sum(self.model(samples).values())

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the four feature maps that the head receives."""
        normalised = (images - self.model.pixel_mean) / self.model.pixel_std
        return list(self.backbone(normalised).values())


def build_backbone(name: str, crop: int, *, checkpointing: bool = False) -> DinoVisionTransformer:
    """Return a backbone for images of ``crop`` pixels, with random weights."""
    return DinoVisionTransformer(
        img_size=crop, patch_size=16, checkpointing=checkpointing, **BACKBONES[name]
    )


def build(backbone: str, args: argparse.Namespace, *, sparse_a: bool, checkpointing: bool):
    """Return the segmentor in training mode; all variants have the same random weights."""
    torch.manual_seed(0)
    vit = build_backbone(backbone, args.crop, checkpointing=checkpointing)
    return OurSegmentor(vit, head=head_sizes(args.head), sparse_a=sparse_a).to(args.device).train()


def streets(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return one batch of drawn streets: images (B, 3, H, W) and labels (B, H, W)."""
    drawn = [draw_street(0, i, height=args.crop, width=args.crop) for i in range(args.batch)]
    images = torch.stack([torch.from_numpy(image) for image, _ in drawn]).permute(0, 3, 1, 2)
    labels = torch.stack([torch.from_numpy(label) for _, label in drawn])
    return images.float().to(args.device), labels.long().to(args.device)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW over the trained parameters, with a high rate so that the loss falls quickly."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    precision: str,
    losses: list[Tensor],
) -> None:
    """Run one training step and append its loss to ``losses``."""
    dtype = PRECISIONS[precision]
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(batch[0].device.type, dtype, enabled=dtype != torch.float32):
        loss = model(*batch)
    loss.backward()
    optimizer.step()
    losses.append(loss.detach())


def add_segmentor_options(parser: argparse.ArgumentParser, *, head: str, crop: int) -> None:
    """Add the options ``--head`` and ``--crop``."""
    meaning = "demo: of configs/demo.py, full: the published one (default: %(default)s)"
    parser.add_argument("--head", choices=HEADS, default=head, help=meaning)
    add_count(parser, "--crop", crop, "pixels, a multiple of 16")
