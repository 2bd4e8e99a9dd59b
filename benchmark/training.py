#!/usr/bin/env python
"""Time iterations of a real training, and the part of them in which it waits for data.

    python -m benchmark.training --device cuda
    python -m benchmark.training --device cuda --compile

It trains a shipped config with its own loader, trainer and hooks on drawn streets of the size of
GTAV, from random weights. The seconds are the medians that ``metrics.json`` has for the last
iterations. ``--compile`` sets ``train.compile=true``.
"""

import argparse
import json
import tempfile
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig

from benchmark import measure
from benchmark.segmentor import BACKBONES, HEADS, PRECISIONS, head_sizes
from drawn_streets import write_streets
from recyclelora.config import get_config
from recyclelora.config.overrides import apply_overrides
from recyclelora.engine.memory import PeakMemory
from recyclelora.engine.training import train
from recyclelora.reproduce.environment import environment

CONFIG = "recyclelora_dinov2l_g2cbm"
LAST = 20  # iterations of the medians in metrics.json


def overrides(root: Path, output: Path, precision: str, args: argparse.Namespace) -> list[str]:
    """Return the overrides of the config: random weights, drawn streets, one short run."""
    vit, backbone = "model.backbone.module.module", BACKBONES[args.backbone]
    depth = backbone["depth"]
    streets = (
        "{_target_:recyclelora.data.register_folder,"
        f"name:training_benchmark,images:'{root}/images',labels:'{root}/labels'}}"
    )
    test = f"{{_target_:recyclelora.data.build_test_loader,dataset:{streets},subset:1}}"
    return [
        "model.backbone.module.weights=null",
        f"{vit}.img_size={args.crop}",
        *(f"{vit}.{key}={value}" for key, value in backbone.items()),
        f"{vit}.out_indices=[{','.join(str(depth * i // 4 - 1) for i in range(1, 5))}]",
        *(f"model.{key}={value}" for key, value in head_sizes(args.head).items()),
        f"dataloader.train.dataset=[{streets}]",
        f"dataloader.train.mapper.crop={args.crop}",
        f"dataloader.train.total_batch_size={args.batch}",
        "dataloader.test.cityscapes=null",
        "dataloader.test.bdd100k=null",
        f"dataloader.test.mapillary={test}",
        f"evaluation.protocol={{_target_:recyclelora.evaluation.native,long_side:{args.crop}}}",
        f"train.output_dir={output}",
        f"train.device={args.device}",
        f"train.amp.dtype={precision}",
        f"train.max_iter={args.iterations}",
        "train.log_period=1",
        "train.picture_period=0",
        *(["train.compile=true"] if args.compile else []),
    ]


def run(root: Path, precision: str, args: argparse.Namespace) -> dict:
    """Train at one precision, and return the seconds of an iteration and the peak memory."""
    with tempfile.TemporaryDirectory() as output:
        cfg: DictConfig = apply_overrides(
            get_config(CONFIG), overrides(root, Path(output), precision, args)
        )
        with PeakMemory(args.device) as memory:
            train(cfg)
        lines = Path(output, "metrics.json").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["total_loss"] for line in lines]
    measure.require_finite(losses, f"the training in {precision}")
    last = json.loads(lines[-1])
    found = {
        "precision": precision,
        "seconds": last["time"],
        "waiting_seconds": last["data_time"],
        "images_per_second": args.batch / last["time"],
        "peak_bytes": memory.peak,
        "losses": losses,
    }
    print(
        f"{precision}: {found['seconds']:.3f} s an iteration, of which it waits "
        f"{found['waiting_seconds']:.3f} s for data; {memory.peak / 1e9:.1f} GB"
    )
    return found


def plot(result: dict) -> Figure:
    """Draw the seconds of an iteration, and those in which it waits."""
    runs = [{"iteration": entry} for entry in result["runs"]]
    panels = [("seconds", 1, "seconds an iteration"), ("waiting_seconds", 1, "waiting for data")]
    labels = [entry["precision"] for entry in result["runs"]]
    return measure.plot_bars(runs, labels, panels, result["environment"]["machine"])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "training", rounds=1)
    add, count = parser.add_argument, measure.add_count
    add("--backbone", choices=BACKBONES, default="dinov2_l", help="default: %(default)s")
    add("--head", choices=HEADS, default="full", help="default: %(default)s")
    count(parser, "--crop", 512, "pixels, a multiple of 16")
    count(parser, "--batch", 4, "images")
    count(parser, "--iterations", 2 * LAST, "of each training")
    count(parser, "--images", 8, "drawn streets")
    count(parser, "--height", 1052, "of the streets")
    count(parser, "--width", 1914, "of the streets")
    add("--precisions", nargs="+", choices=PRECISIONS, default=["bfloat16"])
    add("--compile", action="store_true", help="set train.compile=true")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train at every precision, and write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "training")
    with tempfile.TemporaryDirectory() as folder:
        root = write_streets(
            Path(folder, "day"), count=args.images, height=args.height, width=args.width,
            image_format="png", workers=1,
        )  # fmt: skip
        runs = [run(root, precision, args) for precision in args.precisions]
    result = {"environment": environment(args.device), "settings": settings, "runs": runs}
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
