#!/usr/bin/env python
"""Time a training step for ViT-S and ViT-B, both heads and both precisions.

    python -m benchmark.step_sizes
    python -m benchmark.step_sizes --runs dinov2_b:full:bfloat16 --keep

Each size compares "ours, dense" with Hugging Face and peft as ``benchmark.step`` does, with the
same checks. The files are written after each size. ``--keep`` continues an unfinished measurement.
"""

import argparse
import json
from itertools import product

import torch
from matplotlib.figure import Figure

from benchmark import measure
from benchmark.segmentor import BACKBONES, HEADS, PRECISIONS
from benchmark.step import time_precision
from benchmark.step_systems import BASELINE
from benchmark.worker import workers
from recyclelora.reproduce.environment import environment

COMPARED = (BASELINE, "ours, dense")
ALL_SIZES = list(product(("dinov2_s", "dinov2_b"), ("demo", "full"), PRECISIONS))
KEYS = ("backbone", "head", "precision")
KNOWN = (list(BACKBONES), list(HEADS), list(PRECISIONS))


def size_of(text: str) -> tuple[str, str, str]:
    """Parse a size such as ``dinov2_b:full:bfloat16``; used as ``type`` of an option."""
    parts = tuple(text.split(":"))
    if len(parts) != 3 or not all(part in names for part, names in zip(parts, KNOWN)):
        raise argparse.ArgumentTypeError(
            f"expected BACKBONE:HEAD:PRECISION of {', '.join(BACKBONES)}; {', '.join(HEADS)}; "
            f"{', '.join(PRECISIONS)}, got {text}"
        )
    return parts


def plot(result: dict) -> Figure:
    """Draw the time and the memory of a step for every size."""
    settings, runs = result["settings"], result["runs"]
    labels = [
        f"ViT-{run['backbone'].removeprefix('dinov2_').upper()}\n{run['head']}\n{run['precision']}"
        for run in runs
    ]
    panels = (("median", 1, "seconds a step"), ("peak_bytes", 1e9, "peak memory, GB"))
    title = (
        f"{settings['batch']} x {settings['crop']} x {settings['crop']} pixels; "
        f"{runs[0]['environment']['machine']}"
    )
    return measure.plot_bars([run["systems"] for run in runs], labels, panels, title)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "step_sizes", rounds=3)
    add = parser.add_argument
    add(
        "--runs", nargs="+", type=size_of, default=ALL_SIZES, metavar="BACKBONE:HEAD:PRECISION",
        help="default: ViT-S and ViT-B, the heads demo and full, bfloat16 and float32",
    )  # fmt: skip
    measure.add_count(parser, "--crop", 256, "pixels, a multiple of 16")
    measure.add_count(parser, "--batch", 2, "images")
    add("--keep", action="store_true", help="keep the other sizes that the output file holds")
    return parser.parse_args(arguments)


def place_of(run: dict) -> tuple[int, ...]:
    """Return a key that sorts runs by backbone, head and precision, in the order of the options."""
    return tuple(names.index(run[key]) for names, key in zip(KNOWN, KEYS, strict=True))


def kept(args: argparse.Namespace) -> list[dict]:
    """Return the runs in the output file that are not measured again."""
    if not args.keep or not args.output.is_file():
        return []
    runs = json.loads(args.output.read_text(encoding="utf-8"))["runs"]
    return [run for run in runs if tuple(run[key] for key in KEYS) not in args.runs]


def main(arguments: list[str] | None = None) -> None:
    """Measure every size, and write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "step_sizes")
    for key in ("keep", "runs"):
        del settings[key]
    measure.require_packages()
    runs = kept(args)
    for backbone, head, precision in args.runs:
        print(f"{backbone}, {head} head", flush=True)
        options = argparse.Namespace(**vars(args), backbone=backbone, head=head)
        with workers(COMPARED, torch.get_num_threads(), {}) as processes:
            found = time_precision(options, processes, precision)
        runs.append(
            {"backbone": backbone, "head": head, "environment": environment(args.device), **found}
        )
        runs.sort(key=place_of)
        result = {"settings": settings, "runs": runs}
        measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
