"""The segmentor of the tiny config with predictions of several classes."""

from pathlib import Path

import torch
from torch import nn

from recyclelora.engine import save_checkpoint
from recyclelora.engine.build import build_model, load_config

from .trained_adapters import learn
from .training_runs import ROOT, TINY

CONFIG = str(ROOT / TINY)


@torch.no_grad()
def tiny_segmentor(*overrides: str) -> nn.Module:
    """Build the model; a plain random head would predict one class everywhere."""
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG, overrides), device=torch.device("cpu")).eval()
    head = model.sem_seg_head.predictor
    head.class_embed.weight *= 20
    for layer in head.mask_embed.layers:
        layer.weight *= 5
    return model


def write_trained(file: Path, *overrides: str) -> str:
    """Write a checkpoint of the model with adapters that learned something; return its path."""
    model = tiny_segmentor(*overrides)
    learn(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(file, model=model, iteration=9)
    return str(file)
