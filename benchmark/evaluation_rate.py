#!/usr/bin/env python
"""Time whole evaluations of the segmentor: reading, windows, argmax, scores and pictures.

    python -m benchmark.evaluation_rate --device cuda

Drawn streets of 2048 x 1024 pixels are resized to 1024 x 512 and segmented in windows of 512 pixels
every 341, as the protocol ``paper`` does with Cityscapes. The weights are random. The adapters are
merged, as in the evaluation after a training. The first images only warm up.
"""

import argparse
import math
import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure

from benchmark import measure, segmentor
from benchmark.worker import timed
from drawn_streets import write_streets
from recyclelora.common.cores import available_cores
from recyclelora.data import register_folder
from recyclelora.data.loader import build_test_loader
from recyclelora.engine.predictor import predictor
from recyclelora.evaluation import evaluate_domains, native
from recyclelora.reproduce.environment import environment

WARM_UP = 2  # images


def draw(folder: Path, args: argparse.Namespace) -> dict[str, str]:
    """Draw the streets, and return the registered names of the warm-up and of the timed images."""
    names = {}
    for part, count in (("warm_up", WARM_UP), ("timed", args.images)):
        root = write_streets(
            folder / part, count=count, height=args.height, width=2 * args.height,
            workers=max(1, min(available_cores(), count // 4)),  # a worker starts in seconds
        )  # fmt: skip
        names[part] = register_folder(
            f"evaluation_rate_{part}", images=root / "images", labels=root / "labels"
        )
    return names


def evaluate(
    model: torch.nn.Module, name: str, precision: str, folder: Path, args: argparse.Namespace
) -> dict:
    """Evaluate the images of one registered dataset."""
    height, crop = args.height // 2, args.height // 2
    protocol = native(
        long_side=2 * height,
        mode="slide",
        crop=crop,
        stride=max(crop * 2 // 3, 1),
        batch=args.batch,
    )
    loaders = {"streets": build_test_loader(name)}
    with predictor(model, dtype=segmentor.PRECISIONS[precision]) as predict:
        return evaluate_domains(predict, loaders, protocol, folder)


def time_precision(
    model: torch.nn.Module,
    names: dict[str, str],
    precision: str,
    folder: Path,
    args: argparse.Namespace,
) -> dict:
    """Time the evaluation at one precision, after the warm-up."""
    evaluate(model, names["warm_up"], precision, folder / f"{precision}_warm_up", args)
    run = timed(
        lambda: evaluate(model, names["timed"], precision, folder / precision, args), args.device
    )
    found = run.value["domains"]["streets"]
    measure.require(
        found["images"] == args.images and math.isfinite(found["mIoU"]),
        f"{precision}: expected a score of {args.images} images, got {found}",
    )
    rate = args.images / run.seconds
    print(f"{precision}: {rate:.2f} images a second, {run.peak_bytes / 1e9:.2f} GB")
    return {
        "precision": precision,
        "seconds": run.seconds,
        "images_per_second": rate,
        "peak_bytes": run.peak_bytes,
    }


def plot(result: dict) -> Figure:
    """Draw the images a second."""
    runs = [{"evaluation": run} for run in result["runs"]]
    panels = [("images_per_second", 1, "images / s"), ("peak_bytes", 1e9, "peak memory, GB")]
    labels = [run["precision"] for run in result["runs"]]
    return measure.plot_bars(runs, labels, panels, result["environment"]["machine"])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "evaluation_rate", rounds=1)
    parser.add_argument("--backbone", choices=segmentor.BACKBONES, default="dinov2_l")
    parser.add_argument("--head", choices=segmentor.HEADS, default="full")
    measure.add_count(parser, "--images", 16, "to evaluate")
    measure.add_count(parser, "--height", 1024, "of the images, a multiple of 32")
    measure.add_count(parser, "--batch", 4, "windows in one call of the model")
    known = segmentor.PRECISIONS
    parser.add_argument("--precisions", nargs="+", choices=known, default=list(known))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Time every precision, and write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "evaluation_rate")
    build = argparse.Namespace(**{**vars(args), "crop": args.height // 2})
    model = segmentor.build(args.backbone, build, sparse_a=False, checkpointing=False).model
    with tempfile.TemporaryDirectory() as folder:
        names = draw(Path(folder), args)
        runs = [
            time_precision(model, names, precision, Path(folder), args)
            for precision in args.precisions
        ]
    result = {"environment": environment(args.device), "settings": settings, "runs": runs}
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
