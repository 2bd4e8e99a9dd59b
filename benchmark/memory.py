#!/usr/bin/env python
"""Measure the peak memory of whole training steps of the paper's model, for ViT-S, B and L.

    python -m benchmark.memory
    python -m benchmark.memory --runs dinov2_l:1 dinov2_l:2 dinov2_l:4 --device cuda

Forward, backward and AdamW with the published Mask2Former head, 512 pixels, with and without
activation checkpointing, with dense and sparse A. Each variant runs in a process of its own; on the
CPU its resident memory counts, on a GPU what tensors occupy. All variants of a backbone have to
compute the same first loss. What by its two smaller batches would need more than ``--most-gb`` is
not run: the line through those two is its entry. ``--keep`` takes up where a run ended.
"""

import argparse
import functools
import json
import multiprocessing
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from benchmark import measure
from benchmark.measure import PeakMemory, require, seconds_of
from benchmark.step import BACKBONES, HEADS, PRECISIONS, OurSegmentor, optimizer_of, step, streets
from recyclelora.backbone import DinoVisionTransformer
from recyclelora.reproduce.environment import environment

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
    run = functools.partial(step, model, optimizer, precision=args.precision, losses=losses)
    with PeakMemory(args.device) as peak:
        run(batch=(batch[0][:1, :, :128, :128], batch[1][:1, :128, :128]))  # makes AdamW's state
        for _ in range(args.rounds):
            seconds.append(seconds_of(functools.partial(run, batch=batch), args.device)[0])
    return {
        "peak_bytes": peak.peak,
        "step_bytes": peak.beyond,
        "model_bytes": held_bytes(model),
        "seconds": seconds,
        "losses": torch.stack(losses).tolist(),
    }


def expected_bytes(smaller: dict[int, int], batch: int) -> int | None:
    """The peak at ``batch``, on the line through those of the two largest smaller batches."""
    known = sorted(smaller)[-2:]
    if len(known) < 2:
        return None
    slope = (smaller[known[1]] - smaller[known[0]]) / (known[1] - known[0])
    return round(smaller[known[1]] + slope * (batch - known[1]))


def free_bytes(device: torch.device) -> int:
    """What a new process could take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    text = Path("/proc/meminfo").read_text()
    return int(re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024


def in_own_process(
    runs: Sequence[dict], name: str, backbone: str, batch: int, args: argparse.Namespace
) -> dict[str, Any]:
    """:func:`measured` in a process that has done nothing else, unless it would not fit."""
    smaller = {
        run["batch"]: found["peak_bytes"]
        for run in runs
        if run["backbone"] == backbone and (found := run["variants"][name]).get("peak_bytes")
    }
    expected = expected_bytes(smaller, batch)
    most = 0.8 * free_bytes(args.device) if args.most_gb is None else args.most_gb * 1e9
    if expected is not None and expected > most:
        print(f"{backbone}, {name}, batch {batch}: not run, it needs {expected / 1e9:.1f} GB")
        return {"expected_bytes": expected}
    spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        options = argparse.Namespace(**{**vars(args), "batch": batch})
        try:
            return process.submit(measured, backbone, VARIANTS[name], options, threads).result()
        except BrokenProcessPool:
            raise MemoryError(
                f"the process of {backbone}, {name}, batch {batch} was killed; --most-gb leaves "
                "out what needs more"
            ) from None


def check(backbone: str, variants: dict[str, dict]) -> None:
    """Neither checkpointing nor sparse A changes what a first step computes."""
    losses = {name: found["losses"] for name, found in variants.items() if "losses" in found}
    first = next(iter(losses.values()), [0.0])[0]
    for name, values in losses.items():
        finite = all(torch.isfinite(torch.tensor(values)))
        require(finite, f"a loss of {backbone}, {name}, is not finite: {values}")
        require(
            abs(values[0] - first) < 1e-2 * abs(first),
            f"the first loss of {backbone}, {name}, is {values[0]:.4f}, of others {first:.4f}",
        )


def plot(result: dict) -> Figure:
    """Peak memory of every variant, a group of bars for each run; hollow what was not run."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    runs = result["runs"]
    for i, name in enumerate(VARIANTS):
        for j, found in enumerate(run["variants"][name] for run in runs):
            ran = "peak_bytes" in found
            axes.bar(
                j + 0.2 * i,
                found["peak_bytes" if ran else "expected_bytes"] / 1e9,
                0.2,
                color=measure.COLOURS[i] if ran else "none",
                edgecolor=measure.COLOURS[i],
                label=None if j else name,
            )
    labels = [f"{run['backbone']}\nbatch {run['batch']}" for run in runs]
    axes.set_xticks([j + 0.3 for j in range(len(runs))], labels)
    axes.set_ylabel("peak memory, GB")
    axes.legend(fontsize="small")
    settings = result["settings"]
    sizes = f"{settings['crop']} x {settings['crop']} pixels, {settings['precision']}"
    figure.suptitle(f"{sizes}; {runs[0]['environment']['machine']}", fontsize="small")
    return figure


def run_of(text: str) -> tuple[str, int]:
    """``dinov2_l:4``: a backbone and a batch, as the type of a command line's option."""
    backbone, colon, batch = text.partition(":")
    if backbone not in BACKBONES or not colon:
        raise argparse.ArgumentTypeError(
            f"expected NAME:BATCH with a name of {', '.join(BACKBONES)}, got {text}"
        )
    return backbone, measure.count(batch)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = measure.parser_of(__doc__, "memory", rounds=1)
    add = parser.add_argument
    sizes = "dinov2_s:1 dinov2_b:1 dinov2_l:1 dinov2_l:2 dinov2_l:4"
    add(
        "--runs", nargs="+", type=run_of, default=[run_of(text) for text in sizes.split()],
        help=f"backbones and batches, the smaller first (default: {sizes})",
    )  # fmt: skip
    add("--head", choices=HEADS, default="full", help="full: the published one (default)")
    measure.add_crop(parser, 512)
    add("--precision", choices=PRECISIONS, default="float32", help="default: float32, the paper's")
    add("--most-gb", type=measure.count, help="default: four fifths of the memory that is free")
    add("--keep", action="store_true", help="do not measure anew what the output file has")
    return parser.parse_args(arguments)


def kept(args: argparse.Namespace) -> list[dict]:
    """The runs that need not be measured anew."""
    if not args.keep or not args.output.is_file():
        return []
    wanted = [list(run) for run in args.runs]
    runs = json.loads(args.output.read_text())["runs"]
    return [run for run in runs if [run["backbone"], run["batch"]] in wanted]


def main(arguments: list[str] | None = None) -> None:
    """Measure all of it, write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "memory")
    del settings["keep"]
    runs = kept(args)
    done = [(run["backbone"], run["batch"]) for run in runs]
    left = [run for run in args.runs if run not in done]
    with tqdm(total=len(left) * len(VARIANTS), desc="memory", unit="process") as bar:
        for backbone, batch in left:
            variants = {}
            for name in VARIANTS:
                variants[name] = in_own_process(runs, name, backbone, batch, args)
                bar.update()
            check(backbone, variants)
            record = {"environment": environment(args.device), "variants": variants}
            runs.append({"backbone": backbone, "batch": batch, **record})
            result = {"settings": settings, "runs": runs}
            measure.write_result(args.output, result)
            measure.write_figure(args.plot, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
