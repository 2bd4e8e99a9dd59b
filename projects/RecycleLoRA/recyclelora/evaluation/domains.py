"""Evaluation of every target domain: a table in the log, ``domains.json`` and pictures."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.utils import comm
from tabulate import tabulate
from tqdm import tqdm

from recyclelora.common.atomic_write import atomic_write
from recyclelora.data import CLASSES
from recyclelora.data.loader import TestLoader

from .confusion import ConfusionMatrix
from .pictures import Row, save_rows
from .predictions import check_format, remove_maps, save_prediction
from .protocol import Protocol
from .sliding_window import Predict

logger = logging.getLogger(__name__)
_CELL_WIDTH = 448  # of a picture, in pixels
_COLUMNS = 5  # domains per table of class IoUs, which then fits a terminal


class _Image(NamedTuple):
    """One evaluated image: its mIoU (percent), its number in the dataset, its row of a picture."""

    score: float
    number: int
    row: Row


def evaluate_domains(
    predict: Predict,
    domains: Mapping[str, TestLoader],
    protocol: Protocol,
    output_dir: str | Path,
    pictures: int = 3,
    save_predictions: str | None = None,
) -> dict:
    """Evaluate ``predict`` on every domain, each process on its share of the images.

    Writes these files atomically below ``output_dir``: ``domains.json``, ``one_class.json`` (per
    domain, the mIoU of the best constant prediction), ``images.json`` (per domain and image, its
    mIoU or null), ``domains.png`` (a row per domain), ``best_and_worst.png`` (two rows per domain)
    and ``pictures/DOMAIN.png``. Logs the table. With ``save_predictions``, each process also writes
    the class maps of its images, ``predictions/DOMAIN/FOLDERS/IMAGE.png``, and those of an earlier
    evaluation are removed.

    Parameters
    ----------
    predict : Callable
        (B, 3, H, W) float RGB 0..255 -> (B, C, H, W) logits, on any device.
    domains : Mapping[str, TestLoader]
        Name in the table -> loader of ``build_test_loader``.
    protocol : Protocol
    output_dir : str or Path
    pictures : int
        Number of randomly chosen images per domain to draw; 0 draws none.
    save_predictions : str, optional
        "train_ids", "label_ids" (Cityscapes' own) or "color"; see
        :mod:`recyclelora.evaluation.predictions`.

    Returns
    -------
    dict
        In every process, the content of ``domains.json``: ``{"protocol": {...}, "domains": {name:
        {"mIoU": float, "IoU": {class: float or null}, "images": int}}, "mean_mIoU": float}``, in
        percent; null for a class that the set does not label or that does not occur.
    """
    if not domains:
        raise ValueError("expected at least one domain to evaluate, got none; name some")
    check_format("save_predictions", save_predictions)
    if save_predictions:
        if comm.is_main_process():
            for name in domains:  # they may be of another model
                remove_maps(Path(output_dir, "predictions", name))
        comm.synchronize()
    result = {"protocol": protocol.as_dict(), "domains": {}, "mean_mIoU": 0.0}
    constant, images, overview, extremes = {}, {}, [], []
    for name, loader in domains.items():
        chosen = _chosen(len(loader.dataset), pictures)
        maps = Path(output_dir, "predictions", name)
        save = partial(save_prediction, maps, save_predictions) if save_predictions else None
        confusion, rows, images[name], ends = _evaluate(
            predict, name, loader, protocol, chosen, save
        )
        scores = _scores(name, confusion, len(loader.dataset))
        result["domains"][name] = scores
        constant[name] = 100 * confusion.constant_class_miou()
        extremes += [
            replace(image.row, note=f"{what}: mIoU {image.score:.1f} %, {image.row.note}")
            for what, image in zip(("best", "worst"), ends, strict=False)
        ]
        if rows and comm.is_main_process():
            save_rows(Path(output_dir, "pictures", f"{name}.png"), rows, _CELL_WIDTH)
            note = f"mIoU {scores['mIoU']:.1f} % on {scores['images']} images"
            overview.append(replace(rows[0], note=note))
    means = [scores["mIoU"] for scores in result["domains"].values()]
    result["mean_mIoU"] = float(np.mean(means))
    if comm.is_main_process():
        if overview:
            save_rows(Path(output_dir, "domains.png"), overview, _CELL_WIDTH)
            save_rows(Path(output_dir, "best_and_worst.png"), extremes, _CELL_WIDTH)
        write_json(Path(output_dir, "domains.json"), result)
        write_json(Path(output_dir, "one_class.json"), constant)
        write_json(Path(output_dir, "images.json"), images)
        logger.info("\n%s", domain_table(result, constant))
    return result


def preview_domains(
    predict: Predict,
    domains: Mapping[str, TestLoader],
    protocol: Protocol,
    path: str | Path,
) -> Path:
    """Draw the first chosen image of every domain into one picture file.

    It needs no other process, so the main process may call it alone.
    """
    rows = []
    for name, loader in domains.items():
        for index in _chosen(len(loader.dataset), 1):
            sample = loader.dataset[index]
            segmented = protocol.segment(predict, sample, loader.metadata.benchmark)
            rows.append(_row(name, sample, *segmented))
    return save_rows(path, rows, _CELL_WIDTH)


def domain_table(result: Mapping, constant: Mapping[str, float] | None = None) -> str:
    """Format the protocol, a line per domain, and the IoU of every class, a column per domain.

    Parameters
    ----------
    result : Mapping
        Of :func:`evaluate_domains`.
    constant : Mapping[str, float], optional
        Per domain, the mIoU (percent) of the best constant prediction, for comparison.
    """
    domains = result["domains"]
    summary = [
        [name, scores["images"], scores["mIoU"]] + ([constant[name]] if constant else [])
        for name, scores in domains.items()
    ]
    summary.append(["mean", sum(row[1] for row in summary), result["mean_mIoU"]])
    headers = ["domain", "images", "mIoU"] + (["one class"] if constant else [])
    table = tabulate(summary, headers, floatfmt=".2f", missingval="")
    tables = [f"protocol {Protocol(**result['protocol'])}", table]
    names = list(domains)
    for first in range(0, len(names), _COLUMNS):
        group = names[first : first + _COLUMNS]
        lines = [[label] + [domains[name]["IoU"][label] for name in group] for label in CLASSES]
        tables.append(tabulate(lines, ["IoU", *group], floatfmt=".1f", missingval="-"))
    return "\n\n".join(tables)


def write_json(file: Path, content: Mapping) -> None:
    """Write JSON atomically; creates the folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def _evaluate(
    predict: Predict,
    name: str,
    loader: TestLoader,
    protocol: Protocol,
    chosen: set[int],
    save: Callable[[Mapping, np.ndarray], None] | None,
) -> tuple[ConfusionMatrix, list[Row], dict[str, float | None], list[_Image]]:
    """Return confusion, chosen rows, each image's mIoU, best and worst image of all processes."""
    folding = loader.metadata.get("folding")
    confusion = ConfusionMatrix(len(CLASSES), folding=folding)
    rows: dict[int, Row] = {}
    scores: dict[int, tuple[str, float | None]] = {}
    ends: list[_Image] = []
    progress = tqdm(loader, name, unit="image", disable=not comm.is_main_process())
    for number, sample in zip(loader.indices, progress, strict=True):
        prediction, truth, image = protocol.segment(predict, sample, loader.metadata.benchmark)
        alone = ConfusionMatrix(len(CLASSES), folding=folding)
        try:
            alone.update(prediction, truth)
        except ValueError as error:
            raise ValueError(f"{sample['file_name']}: {error}") from error
        confusion.counts += alone.counts
        if save is not None:
            save(sample, prediction)
        row, score = _row(name, sample, prediction, truth, image), 100 * alone.mean_iou()
        if number in chosen:
            rows[number] = row
        if math.isnan(score):  # no labelled pixel
            scores[number] = sample["image_id"], None
            continue
        scores[number] = sample["image_id"], score
        ends = _best_and_worst([*ends, _Image(score, number, row)])
    rows, scores = _gathered(rows), _gathered(scores)
    ends = _best_and_worst([image for part in comm.gather(ends) for image in part])
    return confusion.merge(), list(rows.values()), dict(scores.values()), ends


def _gathered(parts: dict) -> dict:
    """Return the entries of all processes by number in the main process."""
    return dict(sorted(entry for part in comm.gather(parts) for entry in part.items()))


def _best_and_worst(images: Sequence[_Image]) -> list[_Image]:
    """Return the first image of the highest mIoU and, if another, the first of the lowest."""
    if not images:
        return []
    best = max(images, key=lambda image: (image.score, -image.number))
    worst = min(images, key=lambda image: (image.score, image.number))
    return [best] if best is worst else [best, worst]


def _row(
    name: str, sample: Mapping, prediction: np.ndarray, truth: np.ndarray, image: np.ndarray
) -> Row:
    file = Path(sample["file_name"]).name
    note = "".join(letter if letter.isprintable() else "?" for letter in file)
    row = Row(name, image, prediction, truth, note)
    return row.shrunk(_CELL_WIDTH)


def _scores(name: str, confusion: ConfusionMatrix, images: int) -> dict:
    iou = 100 * confusion.iou()
    if np.isnan(iou).all():
        raise ValueError(
            f"domain '{name}': expected labelled pixels, got only ignored ones in {images} "
            "images; check the dataset's label map"
        )
    per_class = {
        label: None if np.isnan(value) else float(value)
        for label, value in zip(CLASSES, iou, strict=True)
    }
    return {"mIoU": 100 * confusion.mean_iou(), "IoU": per_class, "images": images}


def _chosen(total: int, count: int) -> set[int]:
    """Return the numbers of the images to draw, equal in all processes."""
    order = np.random.default_rng(0).permutation(total)
    return {int(index) for index in order[: max(count, 0)]}
