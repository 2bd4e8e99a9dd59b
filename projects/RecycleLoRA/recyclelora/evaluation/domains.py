"""Evaluation of every target domain: a table in the log, ``domains.json`` and pictures."""

import contextlib
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

from recyclelora.common.atomic_write import write_json
from recyclelora.common.validation import check_number
from recyclelora.data import CLASSES
from recyclelora.data.loader import TestLoader

from .background import Background
from .calibration import ConfidenceHistogram
from .confusion import ConfusionMatrix
from .parallel import concurrent_calls, in_order
from .partial import (
    RESULTS,
    OtherEvaluationError,
    Target,
    load_partial,
    remove_partial,
    save_partial,
)
from .pictures import Row, save_rows
from .predictions import check_format, remove_maps, save_prediction
from .protocol import Protocol
from .sliding_window import Predict

logger = logging.getLogger(__name__)
_CELL_WIDTH = 448  # width of a column of a picture, in pixels
_COLUMNS = 5  # domains per table of class IoUs, so that the table fits a terminal


class _Image(NamedTuple):
    """One evaluated image: mIoU in percent, number in the dataset, and row of a picture."""

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
    *,
    checkpoint: Mapping | None = None,
    settings: Mapping | None = None,
    domain_settings: Mapping[str, Mapping] | None = None,
    resume: bool = False,
    temperature: float | None = None,
) -> dict:
    """Evaluate ``predict`` on every domain; each process evaluates its share of the images.

    The function logs a table of the scores and writes these files atomically below ``output_dir``:
    ``domains.json``, ``one_class.json`` (the mIoU of the best constant prediction for each domain),
    ``images.json`` (the mIoU or null for each image of each domain), ``confusion.json`` (the counts
    of :class:`ConfusionMatrix` for each domain), ``domains.png`` (one row per domain),
    ``best_and_worst.png`` (two rows per domain) and ``pictures/DOMAIN.png``. With
    ``save_predictions``, each process also writes the class maps of its images as
    ``predictions/DOMAIN/FOLDERS/IMAGE.png``. Class maps of an earlier evaluation are removed.

    The scores of each finished domain are kept in ``domains.partial.json`` and
    ``domains.partial.npz`` until all domains have finished.

    Parameters
    ----------
    predict : Callable
        Function from float RGB images (B, 3, H, W) with values 0..255 to logits (B, C, H, W), on
        any device; see :func:`recyclelora.evaluation.parallel.concurrent_calls`.
    domains : Mapping[str, TestLoader]
        The loaders of :func:`build_test_loader`, by the names used in the table.
    protocol : Protocol
        The evaluation protocol.
    output_dir : str or Path
        The folder for the results.
    pictures : int
        The number of randomly chosen images to draw per domain; 0 draws none.
    save_predictions : str, optional
        "train_ids", "label_ids" (Cityscapes' own) or "color"; see
        :mod:`recyclelora.evaluation.predictions`.
    checkpoint : Mapping, optional
        Plain values that identify the model, written as the entry ``checkpoint`` of
        ``domains.json``.
    settings, domain_settings : Mapping, optional
        Further plain values that determine the scores: those common to all domains, and those of
        each domain by name. An evaluation is resumed only if they are equal.
    resume : bool
        Whether to continue from ``domains.partial.json`` if it exists. The domains in it are not
        evaluated again.
    temperature : float, optional
        If given, each domain also gets "ECE" and "AUROC" (percent) of the confidences at this
        temperature; see :mod:`recyclelora.evaluation.calibration`. Use 1 for uncalibrated
        confidences.

    Returns
    -------
    dict
        The content of ``domains.json``, in every process: ``{"protocol": {...}, "domains": {name:
        {"mIoU": float, "IoU": {class: float or null}, "images": int}}, "mean_mIoU": float}``.
        Scores are in percent. The IoU is null for a class that the dataset does not label or that
        does not occur. With ``checkpoint``, the content includes that entry.

    Raises
    ------
    ValueError
        If there is no domain, if a domain has no labelled pixel, or if logits are not finite.
    OtherEvaluationError
        If the interrupted evaluation had other settings, images or domains.
    """
    if not domains:
        raise ValueError("expected at least one domain to evaluate, got none; name some")
    check_format("save_predictions", save_predictions)
    if temperature is not None:
        check_number("temperature", temperature, least=0.01, most=100)
    output_dir, domain_settings = Path(output_dir), domain_settings or {}
    settings = {
        "protocol": protocol.as_dict(),
        "save_predictions": save_predictions,
        "pictures": pictures,
        **({} if temperature is None else {"temperature": temperature}),
        **(settings or {}),
    }
    finished = {}
    if resume:
        finished = _resumed(output_dir, domains, settings, domain_settings)
    if save_predictions:
        if comm.is_main_process():
            for name in domains.keys() - finished.keys():  # these may come from another model
                remove_maps(output_dir / "predictions" / name)
        comm.synchronize()
    for name, loader in domains.items():
        if name in finished:
            continue
        finished[name] = _evaluate_domain(
            predict, name, loader, protocol, output_dir, pictures, save_predictions, temperature
        )
        if comm.is_main_process():
            file = save_partial(output_dir, finished, settings, domain_settings)
            scores = finished[name].scores
            logger.info(
                "%s: mIoU %.2f on %d images (kept in %s)",
                name, scores["mIoU"], scores["images"], file,
            )  # fmt: skip
    finished = {name: finished[name] for name in domains}
    return _write_results(finished, protocol, output_dir, checkpoint)


def _resumed(
    output_dir: Path, domains: Mapping[str, TestLoader], settings: Mapping, of_domains: Mapping
) -> dict[str, Target]:
    """Return the finished domains as read by the main process, which alone gets the pictures."""
    finished, problem = {}, None
    if comm.is_main_process():
        images = {
            name: [record["image_id"] for record in loader.records]
            for name, loader in domains.items()
        }
        try:
            finished = load_partial(output_dir, images, settings, of_domains)
        except OtherEvaluationError as error:
            problem = str(error)
    without_rows = {name: target._replace(rows=[]) for name, target in finished.items()}
    shared, problem = comm.all_gather((without_rows, problem))[0]
    if problem is not None:
        raise OtherEvaluationError(problem)
    if shared:
        logger.info("Resuming after %s, of %s", ", ".join(shared), output_dir / RESULTS)
    else:
        logger.info("No unfinished evaluation in %s: beginning with the first domain", output_dir)
    return finished if comm.is_main_process() else shared


def _evaluate_domain(
    predict: Predict,
    name: str,
    loader: TestLoader,
    protocol: Protocol,
    output_dir: Path,
    pictures: int,
    save_predictions: str | None,
    temperature: float | None,
) -> Target:
    """Evaluate one domain and draw its picture."""
    chosen = _chosen(len(loader.dataset), pictures)
    maps = output_dir / "predictions" / name
    save = partial(save_prediction, maps, save_predictions) if save_predictions else None
    histogram = None if temperature is None else ConfidenceHistogram(temperature)
    confusion, rows, images, ends = _evaluate(
        predict, name, loader, protocol, chosen, save, histogram
    )
    scores = _scores(name, confusion, len(loader.dataset))
    if histogram is not None:
        scores |= histogram.merge().scores()
    drawn = []
    if rows and comm.is_main_process():
        save_rows(output_dir / "pictures" / f"{name}.png", rows, _CELL_WIDTH)
        note = f"mIoU {scores['mIoU']:.1f} % on {scores['images']} images"
        drawn.append(replace(rows[0], note=note))
        drawn += [
            replace(image.row, note=f"{what}: mIoU {image.score:.1f} %, {image.row.note}")
            for what, image in zip(("best", "worst"), ends, strict=False)
        ]
    one_class = 100 * confusion.constant_class_miou()
    return Target(scores, one_class, images, confusion.counts.tolist(), drawn)


def _write_results(
    finished: Mapping[str, Target], protocol: Protocol, output_dir: Path, checkpoint: Mapping | None
) -> dict:
    """Write the files of all domains and log the table; return the content of domains.json."""
    result = {
        "protocol": protocol.as_dict(),
        "domains": {name: target.scores for name, target in finished.items()},
        "mean_mIoU": float(np.mean([target.scores["mIoU"] for target in finished.values()])),
    }
    if checkpoint is not None:
        result = {"checkpoint": dict(checkpoint), **result}
    if comm.is_main_process():
        overview = [target.rows[0] for target in finished.values() if target.rows]
        if overview:
            extremes = [row for target in finished.values() for row in target.rows[1:]]
            save_rows(output_dir / "domains.png", overview, _CELL_WIDTH)
            save_rows(output_dir / "best_and_worst.png", extremes, _CELL_WIDTH)
        constant = {name: target.one_class for name, target in finished.items()}
        write_json(output_dir / "one_class.json", constant)
        images = {name: target.images for name, target in finished.items()}
        write_json(output_dir / "images.json", images)
        confusion = {name: target.confusion for name, target in finished.items()}
        write_json(output_dir / "confusion.json", confusion)
        write_json(output_dir / "domains.json", result)
        remove_partial(output_dir)
        logger.info("\n%s", domain_table(result, constant))
    return result


def preview_domains(
    predict: Predict, domains: Mapping[str, TestLoader], protocol: Protocol, path: str | Path
) -> Path:
    """Draw the first chosen image of every domain into one picture file.

    The function needs no other process, so the main process may call it alone.

    Parameters
    ----------
    predict : Callable
        The function from images to logits.
    domains : Mapping[str, TestLoader]
        The loaders by name.
    protocol : Protocol
        The evaluation protocol.
    path : str or Path
        The picture file.

    Returns
    -------
    Path
        ``path``.
    """
    rows = []
    for name, loader in domains.items():
        for index in _chosen(len(loader.dataset), 1):
            sample = loader.dataset[index]
            segmented = protocol.segment(predict, sample, loader.metadata.benchmark)
            rows.append(_row(name, sample, *segmented))
    return save_rows(path, rows, _CELL_WIDTH)


def domain_table(result: Mapping, constant: Mapping[str, float] | None = None) -> str:
    """Format the scores: a line per domain, then the IoU of each class, a column per domain.

    Parameters
    ----------
    result : Mapping
        The result of :func:`evaluate_domains`.
    constant : Mapping[str, float], optional
        The mIoU (percent) of the best constant prediction for each domain, for comparison.
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
    for first in range(0, len(domains), _COLUMNS):
        group = list(domains)[first : first + _COLUMNS]
        lines = [[label] + [domains[name]["IoU"][label] for name in group] for label in CLASSES]
        tables.append(tabulate(lines, ["IoU", *group], floatfmt=".1f", missingval="-"))
    return "\n\n".join(tables)


def _evaluate(
    predict: Predict,
    name: str,
    loader: TestLoader,
    protocol: Protocol,
    chosen: set[int],
    save: Callable[[Mapping, np.ndarray], None] | None,
    histogram: ConfidenceHistogram | None,
) -> tuple[ConfusionMatrix, list[Row], dict[str, float | None], list[_Image]]:
    """Return the confusion matrix, chosen rows, mIoU per image, and best and worst images."""
    folding = loader.metadata.get("folding")
    confusion = ConfusionMatrix(len(CLASSES), folding=folding)
    rows: dict[int, Row] = {}
    scores: dict[int, tuple[str, float | None]] = {}
    ends: list[_Image] = []

    def segment(sample: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        benchmark = loader.metadata.benchmark
        if histogram is None:
            return protocol.segment(predict, sample, benchmark)
        return histogram.segment(protocol, predict, sample, benchmark, folding)

    def score_image(
        number: int, sample: Mapping, prediction: np.ndarray, truth: np.ndarray, image: np.ndarray
    ) -> None:
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
        if math.isnan(score):  # the image has no labelled pixel
            scores[number] = sample["image_id"], None
            return
        scores[number] = sample["image_id"], score
        ends[:] = _best_and_worst([*ends, _Image(score, number, row)])

    progress = tqdm(loader, name, unit="image", disable=not comm.is_main_process())
    # Only one thread may update a histogram.
    segmented = in_order(segment, progress, 1 if histogram else concurrent_calls(predict))
    with contextlib.closing(segmented), Background() as background:
        for number, (sample, found) in zip(loader.indices, segmented, strict=True):
            background.submit(score_image, number, sample, *found)
    rows, scores = _gathered(rows), _gathered(scores)
    ends = _best_and_worst([image for part in comm.gather(ends) for image in part])
    return confusion.merge(), list(rows.values()), dict(scores.values()), ends


def _gathered(parts: dict) -> dict:
    """Return the entries of all processes, sorted by number, in the main process."""
    return dict(sorted(entry for part in comm.gather(parts) for entry in part.items()))


def _best_and_worst(images: Sequence[_Image]) -> list[_Image]:
    """Return the first image with the highest mIoU and, if different, the first with the lowest."""
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
    return Row(name, image, prediction, truth, note).shrunk(_CELL_WIDTH)


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
    """Return the numbers of the images to draw; they are equal in all processes."""
    return {int(index) for index in np.random.default_rng(0).permutation(total)[: max(count, 0)]}
