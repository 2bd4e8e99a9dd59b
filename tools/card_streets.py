#!/usr/bin/env python
"""Measure and picture the drawn streets, for their card projects/DrawnStreets/README.md.

    python tools/card_streets.py --count 300
    python tools/update_readme.py     writes the card's tables from results/streets.json

Draws that many streets by day on all cores, counts their classes, times every domain, and writes
results/streets.json and docs/streets.jpg. Keeps none of the streets.
"""

import argparse
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from drawn_streets import DOMAINS, GENERATOR_VERSION, draw_street
from recyclelora.common.atomic_write import atomic_write
from recyclelora.data.classes import CLASSES
from recyclelora.evaluation.domains import write_json
from recyclelora.evaluation.pictures import colorize
from recyclelora.reproduce.environment import environment

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 512, 1024
TIMED = 16  # streets of each domain
CELL = (384, 192)  # pixels of one street in the picture
MAP = (64, 32)  # cells of a class's map
MOST_BYTES = 700_000  # of the picture


def count_classes(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels per label value (256,), and where each class lies (19, rows, columns)."""
    _, label = draw_street(seed, index, "day", HEIGHT, WIDTH)
    small = cv2.resize(label, (4 * MAP[0], 4 * MAP[1]), interpolation=cv2.INTER_NEAREST)
    maps = [cv2.resize((small == i) * 1.0, MAP, interpolation=cv2.INTER_AREA) for i in range(19)]
    return np.bincount(label.ravel(), minlength=256), np.array(maps)


def measure_domain(domain: str) -> float:
    """Seconds of one core for a street of this domain; what is made once is not counted."""
    for index in range(4):
        draw_street(1, index, domain, HEIGHT, WIDTH)
    start = time.process_time()
    for index in range(TIMED):
        draw_street(2, index, domain, HEIGHT, WIDTH)
    return (time.process_time() - start) / TIMED


def one_thread() -> None:
    """In every worker: one core does one street."""
    cv2.setNumThreads(0)


def summary(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[dict, np.ndarray]:
    """What ``count_classes`` found, as shares; and the mean map of each class."""
    pixels = np.array([pixels for pixels, _ in found])
    maps = np.mean([maps for _, maps in found], 0)
    seen = pixels[:, :19] > 0
    rows = (np.arange(MAP[1]) + 0.5) / MAP[1]
    height = (maps.sum(2) * rows).sum(1) / np.maximum(maps.sum((1, 2)), 1e-9)
    classes = {
        name: {
            "pixel_share": float(pixels[:, i].sum() / pixels[:, :19].sum()),
            "streets_with": float(seen[:, i].mean()),
            "median_share_where_present": float(
                np.median((pixels[:, i] / pixels.sum(1))[seen[:, i]]) if seen[:, i].any() else 0
            ),
            "mean_height": float(height[i]),
        }
        for i, name in enumerate(CLASSES)
    }
    return {"classes": classes, "ignored_share": float(pixels[:, 255].sum() / pixels.sum())}, maps


def measured(count: int, seed: int, workers: int) -> tuple[dict, np.ndarray]:
    """The record for results/streets.json, and the mean map of each class."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["drawn_streets.preload"])
    with context.Pool(workers, one_thread) as pool:
        drawn = pool.imap_unordered(partial(count_classes, seed), range(count), chunksize=4)
        found = list(tqdm(drawn, total=count, desc="counting classes", unit="street"))
        seconds = list(tqdm(pool.imap(measure_domain, DOMAINS), total=len(DOMAINS), desc="timing"))
    shares, maps = summary(found)
    record = {
        "generator_version": GENERATOR_VERSION,
        "settings": {"count": count, "seed": seed, "height": HEIGHT, "width": WIDTH},
        **shares,
        "seconds_a_street": dict(zip(DOMAINS, seconds, strict=True)),
        "environment": environment(torch.device("cpu")),
    }
    return record, maps


def cell(seed: int, index: int, domain: str, *, overlay: bool = False) -> np.ndarray:
    """One street of the picture, or the same with its classes' colours over it."""
    image, label = draw_street(seed, index, domain, HEIGHT, WIDTH)
    if overlay:
        image = cv2.addWeighted(image, 0.35, colorize(label), 0.65, 0)
    return cv2.resize(image, CELL, interpolation=cv2.INTER_AREA)


def draw_picture(maps: np.ndarray, seed: int) -> Image.Image:
    """Sixteen days, two streets with their labels in every domain, and the classes' maps."""
    days = [cell(seed, index, "day") for index in range(16)]
    rows = [np.hstack(days[i : i + 4]) for i in range(0, 16, 4)]
    titles = ["day", "", "", ""]
    for number, domain in enumerate(DOMAINS):
        scenes = [16 + 2 * number, 17 + 2 * number]
        pairs = [cell(seed, i, domain, overlay=over) for i in scenes for over in (False, True)]
        rows.append(np.hstack(pairs))
        titles.append(f"{domain}, labels over it")
    font, size = ImageFont.load_default(15), (4 * CELL[0] // 10, 4 * CELL[0] // 20)
    sheet = Image.fromarray(
        np.vstack([*rows, np.full((2 * size[1], 4 * CELL[0], 3), 24, np.uint8)])
    )
    pen = ImageDraw.Draw(sheet)
    for row, title in enumerate(titles):
        pen.text((6, row * CELL[1] + 4), title, "white", font, stroke_width=2, stroke_fill="black")
    for i, (name, share) in enumerate(zip(CLASSES, maps, strict=True)):
        grey = np.sqrt(share / max(share.max(), 1e-9)) * 230
        x, y = i % 10 * size[0], len(rows) * CELL[1] + i // 10 * size[1]
        sheet.paste(Image.fromarray(grey.astype(np.uint8)).resize(size), (x, y))
        pen.text((x + 4, y + 2), name, "white", font, stroke_width=2, stroke_fill="black")
    return sheet


def write_picture(path: Path, sheet: Image.Image) -> None:
    """As good a JPEG as fits into ``MOST_BYTES``."""
    for quality in range(90, 20, -5):
        with atomic_write(path) as temporary:
            sheet.save(temporary, "JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            break
    print(f"wrote {path}")


def main() -> None:
    """Measure, picture, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300, help="streets to count (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="which streets (default: 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "streets.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "streets.jpg")
    args = parser.parse_args()
    if min(args.count, args.workers) < 1 or args.seed < 0:
        parser.error("--count and --workers must be at least 1, and --seed not negative")
    record, maps = measured(args.count, args.seed, args.workers)
    write_json(args.output, record)
    write_picture(args.picture, draw_picture(maps, args.seed))


if __name__ == "__main__":
    main()
