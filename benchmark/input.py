#!/usr/bin/env python
"""Measure how many training samples one core reads and augments a second.

    python -m benchmark.input
    python -m benchmark.input --against b5d3f14 --rounds 9

The photographs below ``--photos`` are enlarged to the sizes of GTAV, Cityscapes, BDD100K and
Mapillary Vistas, with so much noise that the files are as large as the real ones. Each candidate is
a process of its own with one thread on the same core: this code, this code without the fast
decoders, and with ``--against`` the code of another commit. They run in turns. All must return the
same samples, bit by bit. The time is that of the processor, which other processes on the machine
disturb least.
"""

import argparse
import contextlib
import io
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmark import measure
from benchmark.input_samples import NOW, PILLOW, read_samples
from benchmark.worker import Worker, alternate, workers
from recyclelora.common.command_line import path_argument
from recyclelora.reproduce.environment import environment


@dataclass(frozen=True)
class Kind:
    """The pairs of a dataset: width and height, kilobytes per image, and formats."""

    size: tuple[int, int]
    kilobytes: int
    format: str
    palette: bool


# Mean sizes in the released archives.
KINDS = {
    "GTAV": Kind((1914, 1052), 2300, "PNG", palette=True),
    "Cityscapes": Kind((2048, 1024), 2300, "PNG", palette=False),
    "BDD100K": Kind((1280, 720), 110, "JPEG", palette=False),
    "Mapillary Vistas": Kind((4000, 3000), 1500, "JPEG", palette=True),
}


def make_pairs(kind: Kind, photos: Path, folder: Path, count: int) -> list[tuple[str, str]]:
    """Write pairs of one kind, and return the names of images and labels."""
    found = sorted(path for path in photos.glob("**/images/*") if path.is_file())
    if len(found) < count:
        raise ValueError(
            f"--photos: expected a folder with at least {count} photographs in images/ and their "
            f"labels in labels/, found {len(found)} below {photos}; name such a folder, or set "
            "RECYCLELORA_DATA"
        )
    pairs = []
    for number, photo in enumerate(found[:: len(found) // count][:count]):
        rng = np.random.default_rng(number)
        with Image.open(photo) as picture:
            image = np.array(picture.convert("RGB").resize(kind.size, Image.Resampling.BICUBIC))
        with Image.open(photo.parents[1] / "labels" / f"{photo.stem}.png") as picture:
            label = _irregular(np.array(picture), kind.size, rng)
        names = [f"{number}.{kind.format.lower()}", f"{number}_label.png"]
        (folder / names[0]).write_bytes(_of_size(image, kind, rng))
        coloured = Image.fromarray(label)
        if kind.palette:
            coloured = coloured.convert("P")
            coloured.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
            coloured.putdata(label.ravel().tolist())
        coloured.save(folder / names[1])
        pairs.append((str(folder / names[0]), str(folder / names[1])))
    return pairs


def _of_size(image: np.ndarray, kind: Kind, rng: np.random.Generator) -> bytes:
    """Encode an image with as much noise as makes the file as large as a real one."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    least, most = 0.0, 32.0
    for _ in range(9):
        level = (least + most) / 2
        stream = io.BytesIO()
        noisy = np.clip(image + level * noise, 0, 255).astype(np.uint8)
        options = {"compress_level": 6} if kind.format == "PNG" else {"quality": 85}
        Image.fromarray(noisy).save(stream, kind.format, **options)
        least, most = (level, most) if stream.tell() < 1000 * kind.kilobytes else (least, level)
    return stream.getvalue()


def _irregular(label: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Enlarge a label and make its borders irregular, like those of real labels."""
    width, height = size
    jitter = [cv2.resize(rng.normal(0, 1.5, (height // 4, width // 4)), size) for _ in range(2)]
    rows = (np.arange(height)[:, None] + jitter[0]) * (label.shape[0] / height)
    columns = (np.arange(width) + jitter[1]) * (label.shape[1] / width)
    nearest = [
        np.clip(places.astype(int), 0, most - 1)
        for places, most in zip((rows, columns), label.shape, strict=True)
    ]
    return label[nearest[0], nearest[1]]


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Yield a temporary folder with the files of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(measure.ROOT)]
        archive = subprocess.run(
            [*git, "archive", revision, "projects/RecycleLoRA"], capture_output=True, check=False
        )
        if archive.returncode:
            raise ValueError(
                f"--against: expected a commit of this repository, got {revision} "
                f"({archive.stderr.decode(errors='replace').strip()})"
            )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def measured(
    kind: Kind, processes: Mapping[str, Worker], args: argparse.Namespace, what: str
) -> dict[str, Any]:
    """Return the seconds of every round of every candidate, for pairs of one kind."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_pairs(kind, args.photos, Path(folder), args.images)
        kilobytes = [[Path(file).stat().st_size / 1e3 for file in pair] for pair in pairs]
        task = (read_samples, pairs, args.samples)
        digests = {
            name: read[0].value
            for name, read in alternate(processes, *task, True, rounds=1, what=what).items()
        }
        for name, digest in digests.items():
            measure.require(digest == digests[NOW], f"the samples of {name} are not those of {NOW}")
        rounds = alternate(processes, *task, False, rounds=args.rounds, what=what)
    found = {}
    for name, answers in rounds.items():
        times = measure.spread([answer.seconds / args.samples for answer in answers])
        peak = max(answer.peak_bytes for answer in answers)
        found[name] = times | {"samples_per_second": 1 / times["median"], "peak_bytes": peak}
    return {"kilobytes": np.mean(kilobytes, axis=0).round().tolist(), "candidates": found}


def report(result: dict[str, Any]) -> None:
    """Print the samples per second of all candidates, and their ratios to this code."""
    for name, run in result["kinds"].items():
        now = run["candidates"][NOW]["samples_per_second"]
        for candidate, found in run["candidates"].items():
            speed, peak = found["samples_per_second"], found["peak_bytes"] / 1e6
            ratio = "" if candidate == NOW else f", {NOW}: {now / speed:.2f}x"
            print(f"{name}, {candidate}: {speed:.1f} samples/s a core, {peak:.0f} MB{ratio}")


def plot(result: dict[str, Any]) -> Figure:
    """Draw the samples per second of every kind and candidate."""
    title = f"training samples of {result['settings']['crop']} pixels; one thread"
    return measure.plot_bars(
        [run["candidates"] for run in result["kinds"].values()],
        list(result["kinds"]),
        [("samples_per_second", 1, "samples / s and core"), ("peak_bytes", 1e6, "peak MB")],
        f"{title}; {result['environment']['machine']}",
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "input", rounds=5)
    photos = os.environ.get("RECYCLELORA_DATA")
    add = parser.add_argument
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    add("--against", metavar="REV", help="an earlier commit to compare with")
    meaning = "photographs in */images, labels in */labels; default: $RECYCLELORA_DATA"
    add("--photos", type=path_argument, default=photos, required=photos is None, help=meaning)
    measure.add_count(parser, "--images", 3, "pairs that are made of each kind")
    measure.add_count(parser, "--samples", 16, "samples that a candidate reads in a round")
    args = parser.parse_args(arguments)
    if args.device.type != "cpu":
        parser.error("--device: samples are read on the CPU")
    args.photos = Path(args.photos)
    return args


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and write the results."""
    args = parse(arguments)
    settings = measure.finish_options(args, "input") | {"crop": 512}
    del settings["photos"]  # a path on this machine
    with contextlib.ExitStack() as stack:
        earlier = {}
        if args.against is not None:
            earlier = {args.against: (NOW, stack.enter_context(checkout(args.against)))}
        processes = stack.enter_context(workers([NOW, PILLOW], 1, earlier))
        kinds = {name: measured(KINDS[name], processes, args, name) for name in args.kinds}
    result = {"settings": settings, "environment": environment(args.device), "kinds": kinds}
    report(result)
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
