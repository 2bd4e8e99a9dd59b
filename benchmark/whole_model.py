#!/usr/bin/env python
"""Time rrqr of all layers of DINOv2-L on a device, and on the CPU.

    python -m benchmark.whole_model --device cuda

The weights are random: 24 layers of q, k, v, proj, fc1 and fc2, and 24 of the fused qkv. The
weights of one shape are one batch, which is on the device before the timing starts. The CPU
decomposes the same weights with all threads. The run ends with an error unless both devices choose
the same pivots and return the same columns of Q up to rounding.
"""

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import recyclelora
from benchmark import measure
from benchmark.decompositions import gaussian
from benchmark.measure import R_MAIN, R_SUB, block_shapes, require, summary
from benchmark.worker import Timed, timed
from recyclelora.reproduce.environment import environment

TOLERANCE = 1e-5  # of the columns of Q, whose entries are at most 1
FUSED = "qkv, fused"


def batches(width: int, blocks: int) -> dict[str, tuple[int, tuple[int, int]]]:
    """Return the number of weights and their shape, for each batch of equal shapes."""
    shapes = block_shapes(width)
    return {
        "q, k, v, proj": (4 * blocks, shapes["proj"]),
        "fc1": (blocks, shapes["fc1"]),
        "fc2": (blocks, shapes["fc2"]),
        FUSED: (blocks, shapes["qkv"]),
    }


def decompose(weights: Tensor) -> recyclelora.ops.RRQR:
    """Decompose a batch with the ranks of the paper, or smaller ones for small weights."""
    smallest = min(weights.shape[-2:])
    return recyclelora.rrqr(weights, min(R_SUB, smallest), min(R_MAIN, smallest))


def time_device(weights: Tensor, rounds: int) -> tuple[list[Timed], recyclelora.ops.RRQR]:
    """Time the batch on its device after one call without timing, and return the last result."""
    call = functools.partial(decompose, weights)
    call()  # loads libraries and kernels
    runs = [timed(call, weights.device) for _ in range(rounds)]
    return [run._replace(value=None) for run in runs], runs[-1].value


def check(name: str, found: recyclelora.ops.RRQR, expected: recyclelora.ops.RRQR) -> float:
    """Raise an error unless the pivots are equal; return the largest difference between the Q."""
    pivots = found.perm.cpu()
    require(
        torch.equal(pivots, expected.perm),
        f"{name}: {int((pivots != expected.perm).sum())} of {pivots.numel():,} entries of perm "
        "differ from those on the CPU",
    )
    differences = [
        float((mine.cpu() - other).abs().max())
        for mine, other in zip(found[1:3], expected[1:3], strict=True)
        if other.numel()
    ]
    largest = max(differences, default=0.0)
    require(
        largest < TOLERANCE,
        f"{name}: an entry of Q differs by {largest:.1e} from that on the CPU, more than "
        f"{TOLERANCE:.0e}",
    )
    return largest


def measure_batch(name: str, count: int, shape: Sequence[int], args: argparse.Namespace) -> dict:
    """Time one batch on the device and on the CPU, and compare the results."""
    weights = gaussian(count, tuple(shape), seed=count)
    runs, found = time_device(weights.to(args.device), args.rounds)
    on_cpu = timed(functools.partial(decompose, weights), torch.device("cpu"))
    difference = check(name, found, on_cpu.value)
    times = {"device": summary(runs), "cpu": summary([on_cpu])}
    for label, run in times.items():
        print(f"{name}, {label}: {run['median']:.3f} s, {run['peak_bytes'] / 1e9:.2f} GB")
    return {"batch": name, "matrices": count, "shape": shape, "difference": difference, **times}


def sums(parts: Sequence[dict]) -> dict[str, Any]:
    """Return the time of all layers on each device, with separate and with fused q, k and v."""

    def total(names: Sequence[str], place: str) -> float:
        return sum(part[place]["median"] for part in parts if part["batch"] in names)

    separate = [part["batch"] for part in parts if part["batch"] != FUSED]
    return {
        place: {
            "median": total(separate, place),
            "peak_bytes": max(part[place]["peak_bytes"] for part in parts),
        }
        for place in ("device", "cpu")
    }


def plot(result: dict) -> Figure:
    """Draw the time of every batch on both devices."""
    parts = result["batches"]
    runs = [{place: part[place] for place in ("device", "cpu")} for part in parts]
    panels = [("median", 1, "seconds a batch"), ("peak_bytes", 1e9, "peak memory, GB")]
    labels = [f"{part['batch']}\n{part['matrices']}" for part in parts]
    environment = result["environment"]
    title = f"device: {environment['machine']}; CPU: {environment['cpu']}"
    return measure.plot_bars(runs, labels, panels, title)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "whole_model", rounds=5)
    measure.add_count(parser, "--width", 1024, "of the model; that of DINOv2-L is 1024")
    measure.add_count(parser, "--blocks", 24, "of the model")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure every batch, and write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "whole_model")
    parts = [
        measure_batch(name, count, shape, args)
        for name, (count, shape) in batches(args.width, args.blocks).items()
    ]
    result = {
        "environment": environment(args.device),
        "settings": settings,
        "batches": parts,
        "model": sums(parts),
    }
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
