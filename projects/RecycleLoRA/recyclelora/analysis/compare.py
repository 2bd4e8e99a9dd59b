"""Draw the predictions of several runs and the ground truth (paper, Figures 6 and 7)."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from recyclelora.common.atomic_write import atomic_write
from recyclelora.config.objects import instantiate
from recyclelora.data.loader import TestLoader
from recyclelora.engine.build import load_config
from recyclelora.evaluation.pictures import GridRow, draw_grid
from recyclelora.evaluation.protocol import nearest

WIDTH = 384  # pixels of one column


def compare_runs(
    folders: Sequence[Path],
    *,
    config_file: str,
    overrides: Sequence[str],
    domain: str,
    output: Path,
    images: Sequence[str] = (),
    count: int = 6,
) -> list[str]:
    """Draw the input, the prediction of every run, and the truth for images of one domain.

    The runs must have been evaluated with ``evaluation.save_predictions=train_ids``.

    Parameters
    ----------
    folders : sequence of Path
        The output folders of the runs.
    config_file, overrides : str, sequence of str
        The config that defines the images and labels of the domain.
    domain : str
        A key of ``dataloader.test``.
    output : Path
        The PNG file to write.
    images : sequence of str
        Image ids as in ``images.json``. If empty, the images are chosen by :func:`choose_images`.
    count : int
        Number of images to choose.

    Returns
    -------
    list of str
        The drawn images.

    Raises
    ------
    FileNotFoundError
        If a run lacks its scores, or the prediction of an image.
    ValueError
        If the domain or an image is unknown.
    """
    scores = {folder: _scores(folder, domain) for folder in folders}
    loader = _loader(config_file, overrides, domain)
    known = {record["image_id"]: index for index, record in enumerate(loader.records)}
    if unknown := [image for image in images if image not in known]:
        raise ValueError(f"domain '{domain}' has no image {unknown[0]!r}: see images.json")
    chosen = list(images) or choose_images(list(scores.values()), known, count)
    rows = []
    for image in chosen:
        sample = loader.dataset[known[image]]
        maps = [_prediction(folder, domain, sample) for folder in folders]
        note = ", ".join(_percent(own.get(image)) for own in scores.values())
        rows.append(_row(image, sample, maps, note))
    sheet = draw_grid(("input", *(folder.name for folder in folders), "truth"), rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as temporary:
        sheet.save(temporary, "PNG", optimize=True)
    return chosen


def choose_images(
    scores: Sequence[dict[str, float | None]], known: dict[str, int], count: int
) -> list[str]:
    """Choose the images on which the mIoU of several runs differs most.

    For a single run, the best and the worst images are chosen.

    Parameters
    ----------
    scores : Sequence[dict[str, float | None]]
        For each run, the mIoU by image, or None for an image without labels.
    known : dict[str, int]
        The index of each image in the dataset.
    count : int
        Number of images.

    Returns
    -------
    list[str]
        The ids of the images.

    Examples
    --------
    >>> runs = [{"a": 10.0, "b": 50.0, "c": 30.0}, {"a": 12.0, "b": 20.0, "c": 30.0}]
    >>> choose_images(runs, {"a": 0, "b": 1, "c": 2}, 2)
    ['b', 'a']
    """
    common = [name for name in known if all(own.get(name) is not None for own in scores)]
    if len(scores) == 1:
        ranked = sorted(common, key=lambda name: -scores[0][name])
        worst = max(len(ranked) - count // 2, (count + 1) // 2)
        return [*ranked[: (count + 1) // 2], *ranked[worst:]]
    spread = {name: np.ptp([own[name] for own in scores]) for name in common}
    return sorted(common, key=lambda name: -spread[name])[:count]


def _scores(folder: Path, domain: str) -> dict[str, float | None]:
    file = folder / "images.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: evaluate the run with --eval-only first")
    found = json.loads(file.read_text(encoding="utf-8"))
    if domain not in found:
        raise ValueError(f"{file} has no domain '{domain}': choose from {', '.join(found)}")
    return found[domain]


def _loader(config_file: str, overrides: Sequence[str], domain: str) -> TestLoader:
    tests = load_config(config_file, overrides).dataloader.test
    domains = {name: loader for name, loader in tests.items() if loader is not None}
    if domain not in domains:
        raise ValueError(f"the config has no domain '{domain}': choose from {', '.join(domains)}")
    return instantiate(domains[domain])


def _prediction(folder: Path, domain: str, sample: dict) -> np.ndarray:
    name = Path(sample["image_id"]).parent / f"{Path(sample['file_name']).stem}.png"
    file = folder / "predictions" / domain / name
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: evaluate the run with evaluation.save_predictions=train_ids"
        )
    ids = np.asarray(Image.open(file))
    if ids.ndim != 2:
        raise ValueError(
            f"{file} has colours, expected class ids: evaluate the run with "
            "evaluation.save_predictions=train_ids"
        )
    return ids


def _row(image: str, sample: dict, maps: Sequence[np.ndarray], note: str) -> GridRow:
    pixels = sample["image"].numpy().transpose(1, 2, 0).astype(np.uint8)
    truth = sample["sem_seg"].numpy().astype(np.uint8)
    height = max(1, round(pixels.shape[0] * WIDTH / pixels.shape[1]))
    small = cv2.resize(pixels, (WIDTH, height), interpolation=cv2.INTER_AREA)
    return GridRow(image, small, [nearest(ids, (height, WIDTH)) for ids in (*maps, truth)], note)


def _percent(score: float | None) -> str:
    return "no labels" if score is None else f"{score:.1f} %"
