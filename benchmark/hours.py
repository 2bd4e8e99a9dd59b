#!/usr/bin/env python
"""Estimate the hours that the paper's training takes on a GPU, from the work of one step.

    python -m benchmark.hours

It counts the floating-point operations for an image (matrix products, convolutions, attention), and
the calls of PyTorch's operators for a batch, each of which takes some microseconds on the CPU. What
share of its peak rate a GPU reaches and how long a call takes are assumptions, each a range: these
hours are **not measured**.
"""

import argparse
import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmark import measure, segmentor
from benchmark.segmentor import BACKBONES, VARIANTS, build, streets
from recyclelora.reproduce.environment import environment

# Dense 10^12 operations per second by data sheet: float32 without tensor cores, TF32, bfloat16.
GPUS = {
    "RTX A6000": {"float32": 38.7, "TF32": 77.4, "bfloat16": 154.8},
    "A100 SXM": {"float32": 19.5, "TF32": 156.0, "bfloat16": 312.0},
    "H100 SXM": {"float32": 66.9, "TF32": 494.7, "bfloat16": 989.4},
}
# Assumed ranges of the share of the peak rate that products reach, and of the seconds per call.
SHARES = {"float32": (0.3, 0.6), "TF32": (0.15, 0.4), "bfloat16": (0.1, 0.35)}
CALL = (5e-6, 15e-6)
ITERATIONS, BATCH = 40_000, 4
# Windows of 512 pixels with stride 341 in the validation images, as the protocol `paper` resizes
# them: Cityscapes 2048 x 1024, BDD100K 1280 x 720, and Mapillary, whose sizes vary, as 4:3.
TESTS = {
    "cityscapes": (500, (1024, 2048)),
    "bdd100k": (1000, (720, 1280)),
    "mapillary_vistas": (2000, (1024, 1365)),
}
Shape = Sequence[int]


def attention(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    """Return the operations of two products: queries with keys, and scores with values."""
    *batch, rows, width = query
    return 2 * math.prod(batch) * rows * key[-2] * (width + value[-1])


def attention_backward(_: Shape, query: Shape, key: Shape, value: Shape, *__, **___) -> int:
    """Return the operations of recomputing the scores and of two products for each product."""
    *batch, rows, width = query
    return 2 * math.prod(batch) * rows * key[-2] * (3 * width + 2 * value[-1])


def dual_lora(x: Shape, weight: Shape, bias: Shape, *factors: Shape, **_: object) -> int:
    """Return the operations of the frozen product and of x through A and B."""
    rank = factors[0][0] + factors[2][0]
    return 2 * math.prod(x[:-1]) * (math.prod(weight) + rank * sum(weight))


def dual_lora_backward(
    grad: Shape, x: Shape, kept: Shape, weight: Shape, A: Shape, *_, **__
) -> int:
    """Return the operations of the gradients of x, A and B; the weight needs no gradient."""
    return 2 * math.prod(grad[:-1]) * (math.prod(weight) + 2 * A[0] * sum(weight))


FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    torch.ops.recyclelora.dual_lora_linear: dual_lora,
    torch.ops.recyclelora.dual_lora_linear_backward: dual_lora_backward,
}


def counter() -> FlopCounterMode:
    """Return a counter of operations that includes our operators and the CPU's attention."""
    return FlopCounterMode(display=False, custom_mapping=FORMULAS)


class Calls(TorchDispatchMode):
    """Context manager that counts the operators called inside its block."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.number += 1
        return function(*args, **(kwargs or {}))


def count(args: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Return operations per image and calls per batch, for training and prediction."""
    small = argparse.Namespace(**{**vars(args), "crop": 128, "batch": BATCH})
    found = {}
    for name in ("dense", "dense, checkpointing"):
        model = build(args.backbone, args, **VARIANTS[name])
        with counter() as counted:
            model(*streets(args)).backward()
        with Calls() as calls:  # small images need as many calls; a fused AdamW needs few
            model(*streets(small)).backward()
        found[name] = {"operations": counted.get_total_flops(), "calls": calls.number}
    model.eval().requires_grad_(False)  # torch's counter fails if only some gradients are off
    with counter() as counted:
        model.model.semantic_logits(streets(args)[0])
    return {**found, "prediction": {"operations": counted.get_total_flops()}}


def windows(height: int, width: int, *, crop: int = 512, stride: int = 341) -> int:
    """Return the number of windows in a sliding-window prediction of an image."""
    return math.prod(1 + math.ceil(max(side - crop, 0) / stride) for side in (height, width))


def hours(operations: int, calls: int) -> dict[str, dict[str, list[float]]]:
    """Return the minimum and maximum hours of the training, by GPU and precision.

    The minimum is the longer of the two times (CPU always ahead). The maximum is their sum.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for gpu, speeds in GPUS.items():
        found[gpu] = {}
        for kind, speed in speeds.items():
            most, least = (BATCH * operations / (speed * 1e12 * share) for share in SHARES[kind])
            steps = [max(least, calls * CALL[0]), most + calls * CALL[1]]
            found[gpu][kind] = [ITERATIONS * seconds / 3600 for seconds in steps]
    return found


def evaluation_share(counted: dict[str, dict[str, int]]) -> float:
    """Return the operations of one evaluation of the three test sets relative to the training."""
    tested = sum(number * windows(*size) for number, size in TESTS.values())
    trained = ITERATIONS * BATCH * counted["dense"]["operations"]
    return tested * counted["prediction"]["operations"] / trained


def plot(result: dict) -> Figure:
    """Draw the ranges for the training without checkpointing."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes, place, labels = figure.subplots(), 0, []
    for gpu, kinds in result["hours"]["dense"].items():
        for i, (kind, (least, most)) in enumerate(kinds.items()):
            axes.barh(-place, most - least, left=least, color=measure.COLOURS[i])
            labels.append(f"{gpu}, {kind}")
            place += 1
    axes.set_yticks([-i for i in range(place)], labels, fontsize="small")
    axes.set_xlim(left=0)
    axes.set_xlabel("hours, estimated, not measured")
    return figure


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "hours", rounds=1)
    meaning = "default: dinov2_l, the paper's"
    parser.add_argument("--backbone", choices=BACKBONES, default="dinov2_l", help=meaning)
    segmentor.add_segmentor_options(parser, head="full", crop=512)
    return parser.parse_args(arguments, argparse.Namespace(batch=1))


def main(arguments: list[str] | None = None) -> None:
    """Count and estimate, and write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "hours")
    counted = count(args)
    result = {
        "environment": environment(args.device),
        "settings": settings,
        "assumed": {"tera_operations_a_second": GPUS, "shares": SHARES, "seconds_a_call": CALL},
        "iterations": ITERATIONS,
        "batch": BATCH,
        "counted": counted,
        "hours": {name: hours(**found) for name, found in counted.items() if "calls" in found},
        "evaluation_share": evaluation_share(counted),
    }
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
