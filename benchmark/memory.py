#!/usr/bin/env python
"""Measure the peak memory of whole training steps of the paper's model, for ViT-S, B and L.

    python -m benchmark.memory
    python -m benchmark.memory --runs dinov2_l:1 dinov2_l:2 dinov2_l:4 --device cuda

Forward, backward and AdamW with the published Mask2Former head, 512 pixels, with and without
activation checkpointing, with dense and sparse A. Each variant runs in a process of its own. On the
CPU its resident memory counts, on a GPU the memory of tensors. All variants of a backbone must
compute the same first loss. A run that would need more than ``--most-gb`` is left out: its entry is
extrapolated from the two smaller batches. ``--keep`` continues an unfinished measurement.
"""

import argparse
import functools
import json
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import psutil
import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from benchmark import measure, segmentor
from benchmark.measure import require, seconds_of
from benchmark.segmentor import BACKBONES, VARIANTS, build, optimizer_of, step, streets
from recyclelora.engine.memory import PeakMemory
from recyclelora.reproduce.environment import environment


def held_bytes(model: nn.Module) -> int:
    """Return the bytes of the parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measured(backbone: str, variant: dict[str, bool], args: argparse.Namespace) -> dict[str, Any]:
    """Return the peak bytes of some steps, in total and beyond the model."""
    model, batch = build(backbone, args, **variant), streets(args)
    optimizer, losses, seconds = optimizer_of(model), [], []
    run = functools.partial(step, model, optimizer, precision=args.precision, losses=losses)
    with PeakMemory(args.device) as peak:
        run(batch=(batch[0][:1, :, :128, :128], batch[1][:1, :128, :128]))  # creates AdamW's state
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
    """Extrapolate the peak at ``batch`` from those of the two largest smaller batches."""
    known = sorted(smaller)[-2:]
    if len(known) < 2:
        return None
    slope = (smaller[known[1]] - smaller[known[0]]) / (known[1] - known[0])
    return round(smaller[known[1]] + slope * (batch - known[1]))


def free_bytes(device: torch.device) -> int:
    """Return the number of bytes that a new process can use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def in_own_process(
    runs: Sequence[dict], name: str, backbone: str, batch: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Run :func:`measured` in a new process, unless it would not fit into memory."""
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
    options = argparse.Namespace(**{**vars(args), "batch": batch})
    try:
        return measure.in_new_process(measured, backbone, VARIANTS[name], options)
    except BrokenProcessPool:
        raise MemoryError(
            f"the process of {backbone}, {name}, batch {batch} was killed: lower --most-gb to "
            "leave out runs of this size"
        ) from None


def check(backbone: str, variants: dict[str, dict]) -> None:
    """Raise an error unless all variants compute the same first loss."""
    losses = {name: found["losses"] for name, found in variants.items() if "losses" in found}
    first = next(iter(losses.values()), [0.0])[0]
    for name, values in losses.items():
        measure.require_finite(values, f"{backbone}, {name},")
        require(
            abs(values[0] - first) < 1e-2 * abs(first),
            f"the first loss of {backbone}, {name}, is {values[0]:.4f}, expected {first:.4f}",
        )


def plot(result: dict) -> Figure:
    """Draw the peak memory of every variant; hollow bars are extrapolated."""
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
    """Parse a backbone and a batch, such as ``dinov2_l:4``; used as ``type`` of an option."""
    backbone, colon, batch = text.partition(":")
    if backbone not in BACKBONES or not colon:
        raise argparse.ArgumentTypeError(
            f"expected NAME:BATCH with a name of {', '.join(BACKBONES)}, got {text}"
        )
    return backbone, measure.count(batch)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "memory", rounds=1)
    add = parser.add_argument
    sizes = "dinov2_s:1 dinov2_b:1 dinov2_l:1 dinov2_l:2 dinov2_l:4"
    add(
        "--runs", nargs="+", type=run_of, default=[run_of(text) for text in sizes.split()],
        help=f"backbones and batches, the smaller first (default: {sizes})",
    )  # fmt: skip
    segmentor.add_segmentor_options(parser, head="full", crop=512)
    known = segmentor.PRECISIONS
    add("--precision", choices=known, default="float32", help="default: float32, the paper's")
    add("--most-gb", type=measure.count, help="default: four fifths of the free memory")
    add("--keep", action="store_true", help="keep the runs that the output file holds")
    return parser.parse_args(arguments)


def kept(args: argparse.Namespace) -> list[dict]:
    """Return the runs in the output file that are kept."""
    if not args.keep or not args.output.is_file():
        return []
    wanted = [list(run) for run in args.runs]
    runs = json.loads(args.output.read_text(encoding="utf-8"))["runs"]
    return [run for run in runs if [run["backbone"], run["batch"]] in wanted]


def main(arguments: list[str] | None = None) -> None:
    """Measure every run, and write the JSON and the plot."""
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
            measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
