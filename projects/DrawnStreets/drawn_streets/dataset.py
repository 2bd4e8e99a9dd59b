"""Streets as a dataset on disk: ``images/000000.jpg``, ``labels/000000.png``, ``dataset.json``."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from .atomic_write import atomic_write
from .classes import CLASSES
from .domains import find_domain
from .generate import GENERATOR_VERSION, check_request, draw_street

FORMATS = ("jpg", "png")
JPEG_QUALITY = 95


def write_streets(
    root: str | Path,
    *,
    domain: str = "day",
    count: int,
    seed: int = 0,
    height: int = 512,
    width: int = 1024,
    workers: int | None = None,
    image_format: str = "jpg",
) -> Path:
    """Draw ``count`` street scenes of one domain into a folder, with a progress bar.

    The files do not depend on ``workers`` (None: one for each core). An interrupted run is taken up
    again: pairs that are there and whole are kept, and a larger ``count`` adds to them.

    Args:
        root: the folder; ``root/images`` and ``root/labels`` (8-bit train ids) are made in it.
        domain: a name from ``DOMAINS``.
        image_format: "jpg" (quality 95) or "png".

    Returns:
        ``root`` as a Path; ``root/dataset.json`` holds the parameters and each class's
        share of the labelled pixels.

    Raises:
        ValueError: a parameter makes no sense, or the folder holds something else.

    >>> import tempfile
    >>> root = write_streets(tempfile.mkdtemp(), count=1, height=64, width=128, workers=1)
    >>> sorted(p.relative_to(root).as_posix() for p in root.rglob("*.*"))
    ['dataset.json', 'images/000000.jpg', 'labels/000000.png']
    """
    root, workers = Path(root), os.cpu_count() if workers is None else workers
    _check(domain, count, seed, height, width, workers, image_format)
    header = {
        "generator": "recyclelora.data.streets",
        "version": GENERATOR_VERSION,
        "domain": domain,
        "seed": seed,
        "height": height,
        "width": width,
        "image_format": image_format,
    }
    _claim(root, header, count)
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True, exist_ok=True)
    _save_json(root / "dataset.json", {**header, "count": count, "complete": False})
    draw = partial(_pair, root, header)
    pixels, images = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for shares in tqdm(
        _map(draw, count, workers), total=count, desc=f"{domain} streets", unit="image"
    ):
        pixels += shares
        images += shares > 0
    labelled = max(int(pixels[: len(CLASSES)].sum()), 1)
    _save_json(
        root / "dataset.json",
        {
            **header,
            "count": count,
            "complete": True,
            "pixel_share": {name: round(pixels[i] / labelled, 6) for i, name in enumerate(CLASSES)},
            "images_with": {name: int(images[i]) for i, name in enumerate(CLASSES)},
        },
    )
    return root


def _check(
    domain: str, count: int, seed: int, height: int, width: int, workers: int, image_format: str
) -> None:
    find_domain(domain)
    check_request(seed, 0, height, width)
    if count < 1 or workers < 1:
        raise ValueError(
            f"count and workers must be at least 1, got count={count}, workers={workers}"
        )
    if image_format not in FORMATS:
        raise ValueError(
            f"unknown image format {image_format!r}: expected one of {', '.join(FORMATS)}"
        )


def streets_in(root: str | Path) -> dict | None:
    """What ``root/dataset.json`` says, as :func:`write_streets` wrote it; None of an empty folder.

    Raises:
        ValueError: ``root`` is a file, or holds something else, in one sentence.
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file: name a folder to write the streets to")
    if not root.exists() or not any(root.iterdir()):
        return None
    try:
        there = json.loads((root / "dataset.json").read_text())
        if not isinstance(there, dict) or not isinstance(there.get("count", 0), int):
            raise ValueError("not what is written here")
    except (OSError, ValueError):
        raise ValueError(
            f"{root} is not empty and has no readable dataset.json: name another folder"
        ) from None
    return there


def _claim(root: Path, header: dict, count: int) -> None:
    """Refuse a folder that holds anything but an earlier part of this very dataset."""
    there = streets_in(root)
    if there is None:
        return
    for key, value in header.items():
        if there.get(key) != value:
            raise ValueError(
                f"{root} holds streets with {key} {there.get(key)!r}, not {value!r}: "
                "name another folder or delete that one"
            )
    if there.get("count", 0) > count:
        raise ValueError(
            f"{root} already holds {there['count']} streets: ask for at least as many, not {count}"
        )


def _map(draw: Callable[[int], np.ndarray], count: int, workers: int) -> Iterator[np.ndarray]:
    """Pixel counts per class of every picture, in any order."""
    if min(workers, count) == 1:
        yield from map(draw, range(count))
        return
    # Workers are forked from a clean server that has imported this module and grown all plants,
    # once: a fork of the caller could inherit locks of its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, f"{__package__}.preload"])
    with context.Pool(min(workers, count), _one_thread) as pool:
        yield from pool.imap_unordered(draw, range(count), chunksize=2)


def _one_thread() -> None:
    cv2.setNumThreads(0)


def _pair(root: Path, header: dict, index: int) -> np.ndarray:
    """Draw and save picture ``index`` unless it is there; its pixels per label value (256,)."""
    image_path = root / "images" / f"{index:06d}.{header['image_format']}"
    label_path = root / "labels" / f"{index:06d}.png"
    size = (header["width"], header["height"])
    label = _whole(label_path, size)
    if label is None or _whole(image_path, size) is None:
        image, label = draw_street(
            header["seed"], index, header["domain"], header["height"], header["width"]
        )
        options = (
            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            if header["image_format"] == "jpg"
            else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        _save(image_path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        _save(label_path, label, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return np.bincount(label.ravel(), minlength=256)


def _whole(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """The picture if the file is there, complete and of this size."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture) if picture.size == size else None
    except (OSError, SyntaxError):
        return None


def _save(path: Path, image: np.ndarray, options: list[int]) -> None:
    ok, data = cv2.imencode(path.suffix, image, options)
    if not ok:
        raise RuntimeError(f"OpenCV could not encode {path}")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _save_json(path: Path, content: dict) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
