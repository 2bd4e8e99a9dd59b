"""The systems that ``benchmark.step`` times, and what it calls in the process of each."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmark import segmentor
from benchmark.measure import R_MAIN, R_SUB
from benchmark.segmentor import VARIANTS, optimizer_of, step, streets
from benchmark.worker import PeakMemory, Timed, timed

BASELINE = "Hugging Face + peft"
OURS = {f"ours, {name}": VARIANTS[name] for name in ("dense", "sparse", "dense, checkpointing")}
SYSTEMS = (BASELINE, *OURS)
MEMORY_STEPS = 3


class Settings(NamedTuple):
    """The options of the benchmark that determine a step."""

    backbone: str
    head: str
    crop: int
    batch: int
    device: torch.device


def build(system: str, args: Settings) -> nn.Module:
    """Return a system in training mode; all start from the same backbone weights."""
    torch.manual_seed(0)
    variant = OURS.get(system, {"checkpointing": False})
    backbone = segmentor.build_backbone(
        args.backbone, args.crop, checkpointing=variant["checkpointing"]
    )
    nn.init.normal_(backbone.pos_embed, std=0.02)
    head = segmentor.head_sizes(args.head)
    if system == BASELINE:
        # The import is here so that a process that measures the memory of ours does not run it.
        from benchmark.hugging_face import HuggingFaceSegmentor

        classes = segmentor.NUM_CLASSES
        model = HuggingFaceSegmentor(
            backbone, head=head, num_classes=classes, r_main=R_MAIN, r_sub=R_SUB
        )
    else:
        model = segmentor.OurSegmentor(backbone, head=head, sparse_a=variant["sparse_a"])
    return model.to(args.device).train()


def parameters(model: nn.Module) -> dict[str, int]:
    """Return the numbers of trained parameters, in the adapters and in the head."""
    adapters = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"adapters": adapters, "head": trained - adapters}


def expected_adapters(model: nn.Module) -> int:
    """Return the number that follows from the ranks and the shapes of the adapted layers."""
    rank, total = R_MAIN + R_SUB, 0
    for module in model.backbone.modules():
        if hasattr(module, "base_layer"):  # a layer of peft
            total += rank * sum(module.base_layer.weight.shape)
        elif hasattr(module, "lora_A_main"):
            out_features, in_features = module.residual.shape
            total += rank * (out_features + (rank if module.settings.sparse_a else in_features))
    return total


@functools.lru_cache(maxsize=1)  # a process has one system, and one precision at a time
def _prepared(
    system: str, args: Settings, precision: str
) -> tuple[nn.Module, torch.optim.Optimizer, tuple[Tensor, Tensor]]:
    model = build(system, args)
    return model, optimizer_of(model), streets(args)


def describe(system: str, args: Settings, precision: str) -> dict:
    """Return the numbers of parameters and the features of the system that will be timed."""
    model, _, batch = _prepared(system, args, precision)
    # On a GPU, PyTorch computes convolutions in TF32 by default.
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        features = [feature.cpu() for feature in model.features(batch[0])]
    counts = parameters(model)
    return {"trained": counts, "adapters": expected_adapters(model), "features": features}


def time_step(system: str, args: Settings, precision: str) -> Timed:
    """Time the next step of the system; the value is its loss."""
    model, optimizer, batch = _prepared(system, args, precision)
    losses: list[Tensor] = []
    run = timed(lambda: step(model, optimizer, batch, precision, losses), args.device)
    return run._replace(value=float(losses[0]))


def memory(system: str, args: Settings, precision: str) -> dict[str, int]:
    """Return the peak bytes of some steps, in total and beyond the model."""
    model, batch = build(system, args), streets(args)
    optimizer, losses = optimizer_of(model), []
    with PeakMemory(args.device) as peak:
        for _ in range(MEMORY_STEPS):
            step(model, optimizer, batch, precision, losses)
    return {"peak_bytes": peak.peak, "step_bytes": peak.beyond}
