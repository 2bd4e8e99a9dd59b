"""The card of the drawn streets: statistics of their classes, and a picture of all domains."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from .atomic_write import atomic_write
from .classes import CLASSES, COLOURS, IGNORE_LABEL
from .dataset import write_json
from .domains import DOMAINS
from .generate import GENERATOR_VERSION, draw_street
from .workers import street_pool

HEIGHT, WIDTH = 512, 1024
TIMED = 16  # streets per domain whose time is measured
CELL = (384, 192)  # size of one street in the picture, in pixels
MAP = (64, 32)  # columns and rows of a class's frequency map
MAX_BYTES = 700_000  # maximum size of the picture


def write_card(
    record_path: Path,
    picture_path: Path,
    *,
    count: int,
    seed: int,
    workers: int,
    environment: Mapping[str, Any],
) -> None:
    """Measure ``count`` streets by day and the time of every domain; write record and picture.

    Parameters
    ----------
    record_path : Path
        JSON file to write.
    picture_path : Path
        JPEG file to write.
    count, seed, workers : int
        Number of streets, their seed, and number of processes.
    environment : mapping
        The machine and the versions, recorded unchanged.
    """
    with street_pool(workers) as pool:
        results = pool.map(partial(count_classes, seed), range(count), chunksize=4)
        counts = list(tqdm(results, total=count, desc="counting classes", unit="street"))
        times = list(tqdm(pool.map(time_domain, DOMAINS), total=len(DOMAINS), desc="timing"))
    statistics, maps = summarise(counts)
    record_path.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        record_path,
        {
            "generator_version": GENERATOR_VERSION,
            "settings": {"count": count, "seed": seed, "height": HEIGHT, "width": WIDTH},
            **statistics,
            "seconds_a_street": dict(zip(DOMAINS, times, strict=True)),
            "environment": environment,
        },
    )
    _write_picture(picture_path, draw_picture(maps, seed))


def count_classes(seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a street's pixels per label (256,) and frequency maps (classes, rows, columns)."""
    _, label = draw_street(seed, index, "day", HEIGHT, WIDTH)
    small = cv2.resize(label, (4 * MAP[0], 4 * MAP[1]), interpolation=cv2.INTER_NEAREST)
    maps = [
        cv2.resize((small == i) * 1.0, MAP, interpolation=cv2.INTER_AREA)
        for i in range(len(CLASSES))
    ]
    return np.bincount(label.ravel(), minlength=256), np.array(maps)


def time_domain(domain: str) -> float:
    """Return the CPU seconds per street of a domain, after a warm-up."""
    for index in range(4):
        draw_street(1, index, domain, HEIGHT, WIDTH)
    start = time.process_time()
    for index in range(TIMED):
        draw_street(2, index, domain, HEIGHT, WIDTH)
    return (time.process_time() - start) / TIMED


def summarise(
    counts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[dict[str, Any], np.ndarray]:
    """Summarise results of :func:`count_classes`: statistics, and each class's mean map."""
    pixels = np.array([pixels for pixels, _ in counts])
    maps = np.mean([maps for _, maps in counts], 0)
    labelled = pixels[:, : len(CLASSES)]
    present = labelled > 0
    rows = (np.arange(MAP[1]) + 0.5) / MAP[1]
    height = (maps.sum(2) * rows).sum(1) / np.maximum(maps.sum((1, 2)), 1e-9)
    classes = {
        name: {
            "pixel_share": float(labelled[:, i].sum() / labelled.sum()),
            "streets_with": float(present[:, i].mean()),
            "median_share_where_present": float(
                np.median((labelled[:, i] / pixels.sum(1))[present[:, i]])
                if present[:, i].any()
                else 0
            ),
            "mean_height": float(height[i]),
        }
        for i, name in enumerate(CLASSES)
    }
    ignored = float(pixels[:, IGNORE_LABEL].sum() / pixels.sum())
    return {"classes": classes, "ignored_share": ignored}, maps


def draw_picture(maps: np.ndarray, seed: int) -> Image.Image:
    """Draw sixteen days, two streets of every domain with their labels, and the classes' maps."""
    days = [_cell(seed, index, "day") for index in range(16)]
    rows = [np.hstack(days[i : i + 4]) for i in range(0, 16, 4)]
    titles = ["day", "", "", ""]
    for number, domain in enumerate(DOMAINS):
        scenes = [16 + 2 * number, 17 + 2 * number]
        pairs = [_cell(seed, i, domain, overlay=over) for i in scenes for over in (False, True)]
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


def _cell(seed: int, index: int, domain: str, *, overlay: bool = False) -> np.ndarray:
    """Draw one street at the size of a cell, optionally with the colours of its labels over it."""
    image, label = draw_street(seed, index, domain, HEIGHT, WIDTH)
    if overlay:
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(COLOURS)] = COLOURS
        image = cv2.addWeighted(image, 0.35, palette[label], 0.65, 0)
    return cv2.resize(image, CELL, interpolation=cv2.INTER_AREA)


def _write_picture(path: Path, sheet: Image.Image) -> None:
    """Write a JPEG of the highest quality that fits into ``MAX_BYTES``."""
    for quality in range(90, 20, -5):
        with atomic_write(path) as temporary:
            sheet.save(temporary, "JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            break
    print(f"wrote {path}")
