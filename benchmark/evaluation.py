#!/usr/bin/env python
"""Compare whole evaluations with an earlier commit, and the merged model with Hugging Face's.

    python -m benchmark.evaluation --against b5d3f14
    python -m benchmark.evaluation --against b5d3f14 --threads 1 --sets photographs

An evaluation reads, resizes, segments, scores and draws images. The model is the one in
``results/streets_to_real/segmentor``. The sets are the photographs in RECYCLELORA_DATA, evaluated
as in ``configs/streets_to_real.py``, and photographs enlarged to 2048 x 1024 pixels, evaluated in
windows by the protocol ``paper``. Each candidate is a process of its own with the same number of
threads, pinned to as many cores, and the candidates alternate. Before the timing, the class maps of
all candidates are compared. At the end, the merged model and Hugging Face's Mask2Former of the same
size compute the scores of the same windows.
"""

import argparse
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from benchmark import measure
from benchmark.evaluation_systems import HUGGING_FACE, NOW, NUM_CLASSES, Task, evaluate, segment
from benchmark.input import KINDS, checkout, make_pairs
from benchmark.worker import Worker, alternate, workers
from recyclelora import Segmentor
from recyclelora.adapters import export
from recyclelora.common.command_line import path_argument
from recyclelora.common.cores import available_cores
from recyclelora.reproduce.environment import environment

SEGMENTOR = measure.ROOT / "results" / "streets_to_real" / "segmentor"
PHOTOGRAPHS, LARGE = "photographs", "2048x1024"
WINDOWS = 4  # the batch of the protocol


def prepare(sets: list[str], photos: Path, count: int, folder: Path) -> dict[str, Task]:
    """Write the weights and the enlarged photographs, and return the evaluation of each set."""
    settings = json.loads((SEGMENTOR / "config.json").read_text(encoding="utf-8"))
    backbone = {key: value for key, value in settings["backbone"].items() if key != "type"}
    sizes = json.dumps({"backbone": backbone, "head": settings["head"] | {"num_points": 3136}})
    weights = folder / "weights.pth"
    model = export(Segmentor.from_pretrained(SEGMENTOR).model, copy=False)
    torch.save({name: value.float() for name, value in model.state_dict().items()}, weights)
    tasks = {}
    for name in sets:
        images, place = count, None
        if name == LARGE:
            place = folder / LARGE
            images = write_large(photos, place, max(2, count // 8))
        tasks[name] = Task(sizes, str(weights), place and str(place), images, "float32")
    return tasks


def write_large(photos: Path, place: Path, count: int) -> int:
    """Write photographs of 2048 x 1024 pixels with their labels, and return their number."""
    for part in ("images", "labels"):
        (place / part).mkdir(parents=True)
    for number, pair in enumerate(make_pairs(KINDS["Cityscapes"], photos, place, count)):
        for part, name in zip(("images", "labels"), pair, strict=True):
            shutil.move(name, place / part / f"{number}.png")
    return count


def compare(processes: Mapping[str, Worker], task: Task) -> dict[str, dict]:
    """Evaluate once in every process; return scores and the share of pixels of the same class."""
    found, maps = {}, {}
    for name, process in processes.items():
        with tempfile.TemporaryDirectory() as folder:
            result = process(evaluate, process.system, task, folder).value
            root = Path(folder, "predictions")
            maps[name] = {
                str(file.relative_to(root)): np.asarray(Image.open(file))
                for file in sorted(root.rglob("*.png"))
            }
        images = sum(domain["images"] for domain in result["domains"].values())
        found[name] = {"mean_mIoU": result["mean_mIoU"], "images": images}
    for name, predicted in maps.items():
        measure.require(predicted.keys() == maps[NOW].keys(), f"{name} has other class maps")
        equal = [np.mean(predicted[file] == maps[NOW][file]) for file in predicted]
        found[name]["equal_pixels"] = float(np.mean(equal))
        measure.require(
            found[name]["equal_pixels"] > 0.99, f"the class maps of {name} differ: {found[name]}"
        )
    return found


def time_evaluations(
    processes: Mapping[str, Worker], task: Task, args: argparse.Namespace, what: str
) -> dict[str, dict]:
    """Compare all candidates and time their evaluations in turns."""
    found = compare(processes, task)
    runs = alternate(processes, evaluate, task, None, rounds=args.rounds, what=what)
    for name, timed in runs.items():
        found[name] |= measure.summary(timed)
        found[name]["images_per_second"] = found[name]["images"] / found[name]["median"]
        speed = found[NOW]["images_per_second"] / found[name]["images_per_second"]
        print(
            f"{what}, {name}: {found[name]['images_per_second']:.2f} images/s, {NOW}: {speed:.2f}x,"
            f" {found[name]['equal_pixels']:.4%} of the pixels equal",
            flush=True,
        )
    return found


def time_model(
    processes: Mapping[str, Worker], task: Task, args: argparse.Namespace
) -> dict[str, dict]:
    """Time the merged model of every candidate on the same windows."""
    runs = alternate(processes, segment, task, WINDOWS, rounds=1 + args.rounds, what="model")
    shape = (WINDOWS, NUM_CLASSES, 512, 512)
    for name, timed in runs.items():
        measure.require(
            all(run.value == shape for run in timed), f"{name}: expected scores of shape {shape}"
        )
    found = {name: measure.summary(timed[1:]) for name, timed in runs.items()}
    for name, run in found.items():
        run["windows_per_second"] = WINDOWS / run["median"]
        print(f"model in {task.precision}, {name}: {run['windows_per_second']:.2f} windows/s")
    return found


def plot(result: dict) -> Figure:
    """Draw the images per second of each set and precision."""
    runs = result["evaluations"]
    labels = [f"{run['set']}\n{run['precision']}" for run in runs]
    panels = [("images_per_second", 1, "images / s"), ("peak_bytes", 1e9, "peak memory, GB")]
    title = f"whole evaluations, {result['settings']['threads']} threads"
    return measure.plot_bars(
        [run["candidates"] for run in runs],
        labels,
        panels,
        f"{title}; {result['environment']['machine']}",
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "evaluation", rounds=3)
    measure.add_against(parser)
    photos = os.environ.get("RECYCLELORA_DATA")
    sets, precisions = [PHOTOGRAPHS, LARGE], ["bfloat16", "float32"]
    parser.add_argument("--sets", nargs="+", choices=sets, default=sets)
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=precisions)
    meaning = "photographs in */images, labels in */labels; default: $RECYCLELORA_DATA"
    parser.add_argument(
        "--photos", type=path_argument, default=photos, required=photos is None, help=meaning
    )
    measure.add_count(parser, "--images", 16, "of each set of photographs; an eighth if large")
    measure.add_count(parser, "--threads", available_cores(), "of each candidate")
    args = parser.parse_args(arguments)
    if args.device.type != "cpu":
        parser.error("--device: benchmark.evaluation_rate times evaluations on a GPU")
    args.photos = Path(args.photos)
    os.environ["RECYCLELORA_DATA"] = str(args.photos)  # the candidates read it
    return args


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and write the results."""
    args = parse(arguments)
    settings = measure.finish_options(args, "evaluation")
    del settings["photos"]  # a path on this machine
    measure.require_packages()
    evaluations, models = [], []
    with contextlib.ExitStack() as stack:
        earlier = {}
        if args.against is not None:
            earlier = {args.against: (NOW, stack.enter_context(checkout(args.against)))}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tasks = prepare(args.sets, args.photos, args.images, folder)
        processes = stack.enter_context(workers([NOW, HUGGING_FACE], args.threads, earlier))
        ours = {name: process for name, process in processes.items() if name != HUGGING_FACE}
        for precision in args.precisions:
            for name, task in tasks.items():
                task = task._replace(precision=precision)
                found = time_evaluations(ours, task, args, f"{name} in {precision}")
                evaluations.append({"set": name, "precision": precision, "candidates": found})
            found = time_model(processes, task, args)
            models.append({"precision": precision, "candidates": found})
    result = {
        "environment": environment(args.device),
        "settings": settings,
        "evaluations": evaluations,
        "models": models,
    }
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
