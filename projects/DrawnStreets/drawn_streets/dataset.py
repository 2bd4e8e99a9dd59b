"""Streets as a dataset on disk: ``images/000000.jpg``, ``labels/000000.png``, ``dataset.json``."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from .atomic_write import atomic_write
from .classes import CLASSES
from .domains import find_domain
from .generate import GENERATOR_VERSION, check_request, draw_street
from .workers import street_pool

# The name of an earlier module. It is recorded in every dataset.json and compared before a dataset
# is resumed, so another name would make existing datasets impossible to resume.
GENERATOR = "recyclelora.data.streets"
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

    The files do not depend on ``workers``. A second call resumes an interrupted one: it keeps pairs
    that are complete. A larger ``count`` extends the dataset. In a script, call the
    function below ``if __name__ == "__main__":``, because every worker imports the script.

    Parameters
    ----------
    root : str or Path
        The dataset's folder. Images go to ``root/images``, label maps (8-bit train ids) to
        ``root/labels``.
    domain : str
        A name from ``DOMAINS``.
    count : int
        Number of scenes.
    seed : int
        Seed of all scenes; scene ``i`` is ``draw_street(seed, i, domain, height, width)``.
    height, width : int
        Size of the images in pixels, from 32 to 8192.
    workers : int, optional
        Number of processes; by default one per CPU core. 1 draws in the calling process.
    image_format : str
        "jpg" (quality 95) or "png".

    Returns
    -------
    Path
        ``root``. ``root/dataset.json`` holds the parameters and each class's share of the labelled
        pixels.

    Raises
    ------
    ValueError
        If a parameter is invalid, or if the folder holds anything but a part of this dataset.

    Examples
    --------
    >>> import tempfile
    >>> root = write_streets(tempfile.mkdtemp(), count=1, height=64, width=128, workers=1)
    >>> sorted(p.relative_to(root).as_posix() for p in root.rglob("*.*"))
    ['dataset.json', 'images/000000.jpg', 'labels/000000.png']
    """
    root, workers = Path(root), (os.cpu_count() or 1) if workers is None else workers
    _check_arguments(domain, count, seed, height, width, workers, image_format)
    parameters: dict[str, str | int] = {
        "generator": GENERATOR,
        "version": GENERATOR_VERSION,
        "domain": domain,
        "seed": seed,
        "height": height,
        "width": width,
        "image_format": image_format,
    }
    _check_resumable(root, parameters, count)
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True, exist_ok=True)
    write_json(root / "dataset.json", {**parameters, "count": count, "complete": False})
    draw = partial(_write_pair, root, parameters)
    pixels, images = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for counts in tqdm(
        _map(draw, count, workers), total=count, desc=f"{domain} streets", unit="image"
    ):
        pixels += counts
        images += counts > 0
    labelled = max(int(pixels[: len(CLASSES)].sum()), 1)
    write_json(
        root / "dataset.json",
        {
            **parameters,
            "count": count,
            "complete": True,
            "pixel_share": {name: round(pixels[i] / labelled, 6) for i, name in enumerate(CLASSES)},
            "images_with": {name: int(images[i]) for i, name in enumerate(CLASSES)},
        },
    )
    return root


def _check_arguments(
    domain: str,
    count: int,
    seed: int,
    height: int,
    width: int,
    workers: int,
    image_format: str,
) -> None:
    """Raise a ValueError if an argument of ``write_streets`` is invalid."""
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


def streets_in(root: str | Path) -> dict[str, Any] | None:
    """Read the parameters of a dataset that :func:`write_streets` wrote.

    Parameters
    ----------
    root : str or Path
        The dataset's folder.

    Returns
    -------
    dict or None
        The content of ``root/dataset.json``; None if the folder does not exist or holds nothing but
        files of the operating system, such as ``.DS_Store``.

    Raises
    ------
    ValueError
        If ``root`` is a file, or if the folder holds anything else.

    Examples
    --------
    >>> import tempfile
    >>> print(streets_in(tempfile.mkdtemp()))
    None
    """
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file: name a folder to write the streets to")
    if not root.exists() or all(map(_is_of_the_system, root.iterdir())):
        return None
    try:
        found = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("count", 0), int):
            raise ValueError("not written by write_streets")
    except (OSError, ValueError):
        raise ValueError(
            f"{root} is not empty and has no readable dataset.json: name another folder"
        ) from None
    return found


def _is_of_the_system(path: Path) -> bool:
    """Whether a file browser or a file system wrote ``path``."""
    return path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini")


def _check_resumable(root: Path, parameters: Mapping[str, str | int], count: int) -> None:
    """Raise a ValueError if the folder holds anything but a part of this dataset."""
    found = streets_in(root)
    if found is None:
        return
    for key, value in parameters.items():
        if found.get(key) != value:
            raise ValueError(
                f"{root} holds streets with {key} {found.get(key)!r}, not {value!r}: "
                "name another folder or delete that one"
            )
    if found.get("count", 0) > count:
        raise ValueError(
            f"{root} already holds {found['count']} streets: ask for at least as many, not {count}"
        )


def _map(draw: Callable[[int], np.ndarray], count: int, workers: int) -> Iterator[np.ndarray]:
    """Yield ``draw(index)`` of every scene, computed by worker processes."""
    if min(workers, count) == 1:
        yield from map(draw, range(count))
        return
    with street_pool(min(workers, count)) as pool:
        yield from pool.map(draw, range(count), chunksize=2)


def _write_pair(root: Path, parameters: Mapping[str, Any], index: int) -> np.ndarray:
    """Draw and save pair ``index`` if it is incomplete; return its pixels per label (256,)."""
    image_path = root / "images" / f"{index:06d}.{parameters['image_format']}"
    label_path = root / "labels" / f"{index:06d}.png"
    size = (parameters["width"], parameters["height"])
    label = _read_if_complete(label_path, size)
    if label is None or _read_if_complete(image_path, size) is None:
        image, label = draw_street(
            parameters["seed"],
            index,
            parameters["domain"],
            parameters["height"],
            parameters["width"],
        )
        options = (
            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            if parameters["image_format"] == "jpg"
            else [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        _write_image(image_path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        _write_image(label_path, label, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return np.bincount(label.ravel(), minlength=256)


def _read_if_complete(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Return the image if the file exists, is complete and has this size, else None."""
    try:
        with Image.open(path) as image:
            return np.asarray(image) if image.size == size else None
    except (OSError, SyntaxError):
        return None


def _write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    encoded, data = cv2.imencode(path.suffix, image, options)
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode {path}")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
