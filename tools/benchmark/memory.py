#!/usr/bin/env python
"""Measure the peak memory of whole training steps of the paper's model, for ViT-S, B and L.

    python tools/benchmark/memory.py
    python tools/benchmark/memory.py --backbones dinov2_l --batch 4 --device cuda

Forward, backward and AdamW with the published Mask2Former head, 512 pixels, with and without
activation checkpointing, with dense and sparse A. Each variant runs in a process of its own; on the
CPU its resident memory counts, on a GPU what tensors occupy. All variants of a backbone have to
compute the same first loss.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

import measure
from measure import PeakMemory, require, seconds_of
from recyclelora.backbone import DinoVisionTransformer
from step import BACKBONES, HEADS, PRECISIONS, OurSegmentor, optimizer_of, step, streets

VARIANTS = {
    "dense": {"sparse_a": False, "checkpointing": False},
    "sparse": {"sparse_a": True, "checkpointing": False},
    "dense, checkpointing": {"sparse_a": False, "checkpointing": True},
    "sparse, checkpointing": {"sparse_a": True, "checkpointing": True},
}


def build(backbone: str, args: argparse.Namespace, *, sparse_a: bool, checkpointing: bool):
    """The segmentor in training mode, its weights random but the same for all variants."""
    torch.manual_seed(0)
    size = BACKBONES[backbone]
    vit = DinoVisionTransformer(
        img_size=args.crop, patch_size=16, checkpointing=checkpointing, **size
    )
    return OurSegmentor(vit, head=HEADS[args.head], sparse_a=sparse_a).to(args.device).train()


def held_bytes(model: nn.Module) -> int:
    """What the model's parameters and buffers occupy."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measured(
    backbone: str, variant: dict[str, bool], args: argparse.Namespace, threads: int
) -> dict[str, Any]:
    """Bytes at the peak of some steps, in all and beyond the model; runs in a fresh process."""
    torch.set_num_threads(threads)
    model, batch = build(backbone, args, **variant), streets(args)
    optimizer, losses, seconds = optimizer_of(model), [], []
    with PeakMemory(args.device) as peak:
        for _ in range(args.rounds):
            elapsed, _ = seconds_of(
                lambda: step(model, optimizer, batch, args.precision, losses), args.device
            )
            seconds.append(elapsed)
    return {
        "peak_bytes": peak.peak,
        "step_bytes": peak.beyond,
        "model_bytes": held_bytes(model),
        "seconds": seconds,
        "losses": torch.stack(losses).tolist(),
    }


def check(backbone: str, variants: dict[str, dict]) -> None:
    """Neither checkpointing nor sparse A changes what a first step computes."""
    losses = {name: found["losses"] for name, found in variants.items()}
    first = losses["dense"][0]
    for name, values in losses.items():
        finite = all(torch.isfinite(torch.tensor(values)))
        require(finite, f"a loss of {backbone}, {name}, is not finite: {values}")
        require(
            abs(values[0] - first) < 1e-2 * abs(first),
            f"the first loss of {backbone}, {name}, is {values[0]:.4f}, that of dense {first:.4f}",
        )


def plot(result: dict) -> Figure:
    """Peak memory of every variant, a group of bars for each backbone."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    runs = result["runs"]
    for i, name in enumerate(VARIANTS):
        heights = [run["variants"][name]["peak_bytes"] / 1e9 for run in runs]
        places = [j + 0.2 * i for j in range(len(runs))]
        axes.bar(places, heights, 0.2, color=measure.COLOURS[i], label=name)
    axes.set_xticks([j + 0.3 for j in range(len(runs))], [run["backbone"] for run in runs])
    axes.set_ylabel("peak memory, GB")
    axes.legend(fontsize="small")
    settings = result["settings"]
    sizes = f"{settings['batch']} x {settings['crop']} x {settings['crop']} pixels"
    machine = result["environment"]["machine"]
    figure.suptitle(f"{sizes}, {settings['precision']}; {machine}", fontsize="small")
    return figure


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # The first step makes AdamW's state, which the second has on top.
    measure.add_common_options(parser, "memory", rounds=2)
    add = parser.add_argument
    sizes = ["dinov2_s", "dinov2_b", "dinov2_l"]
    add("--backbones", nargs="+", choices=BACKBONES, default=sizes, help="default: S, B and L")
    add("--head", choices=HEADS, default="full", help="full: the published one (default)")
    add("--crop", type=measure.count, default=512, help="pixels, a multiple of 16 (default: 512)")
    add("--batch", type=measure.count, default=1, help="images (default: 1)")
    add("--precision", choices=PRECISIONS, default="float32", help="default: float32, the paper's")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure all of it, write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "memory")
    spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    runs = []
    with tqdm(total=len(args.backbones) * len(VARIANTS), desc="memory", unit="process") as bar:
        for backbone in args.backbones:
            variants = {}
            for name, variant in VARIANTS.items():
                with ProcessPoolExecutor(1, mp_context=spawn) as process:
                    future = process.submit(measured, backbone, variant, args, threads)
                    variants[name] = future.result()
                bar.update()
            check(backbone, variants)
            runs.append({"backbone": backbone, "variants": variants})
    environment = measure.environment(args.device)
    result = {"environment": environment, "settings": settings, "runs": runs}
    measure.write_result(args.output, result)
    measure.write_figure(args.plot, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
