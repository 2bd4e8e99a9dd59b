"""Whether the datasets on disk are whole and readable: counts, class shares, faults by name."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from recyclelora.common.validation import check_integer, format_error

from .classes import CLASSES, IGNORE_LABEL
from .folders import Folder, Pair
from .label_maps import LabelMap
from .reading import header_size, pair_size, read_ids, read_image, size_mismatch

UNPAIRED, UNREADABLE, MISMATCHED, UNKNOWN = "unpaired", "unreadable", "mismatched", "unknown value"

Job = tuple[Path, Path, LabelMap]  # image, label, what the label means


class Fault(NamedTuple):
    """What is wrong with one file: its kind, and a sentence that names it and says what to do."""

    kind: str
    sentence: str


class PairCheck(NamedTuple):
    """What was seen of one pair: ``pixels`` (20,) of each class and of "ignored", or the fault."""

    pixels: tuple[int, ...] | None = None
    fault: Fault | None = None


@dataclass
class SetReport:
    """What is known of one dataset on disk.

    Attributes:
        name, title: as registered, and as in papers.
        looked_in: every place that was tried.
        layout: the one it was found in, else None.
        expected, found: pairs of the release (None for sets of one's own), and pairs there.
        missing: the sentence of what is not there, and what to do; None where all is.
        faults: files that cannot be used.
        left_out: known faults of the release, which the loader leaves out too.
        pixels: (20,) of each class and of "ignored"; None where only headers were read.
    """

    name: str
    title: str
    looked_in: list[str] = field(default_factory=list)
    layout: str | None = None
    expected: int | None = None
    found: int = 0
    missing: str | None = None
    faults: list[Fault] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    pixels: list[int] | None = None

    @property
    def state(self) -> str:
        """``missing``, ``faulty``, ``incomplete`` or ``complete``, the worst that applies."""
        if self.layout is None:
            return "missing"
        if self.faults:
            return "faulty"
        return "incomplete" if self.missing else "complete"

    def shares(self) -> dict[str, float] | None:
        """Percent of the pixels by class name, and of "ignored"; None without ``pixels``."""
        if self.pixels is None:
            return None
        total = max(sum(self.pixels), 1)
        return {name: 100 * n / total for name, n in zip((*CLASSES, "ignored"), self.pixels)}

    def as_json(self) -> dict:
        """Plain values of all of it."""
        return {
            "state": self.state,
            "title": self.title,
            "looked_in": self.looked_in,
            "layout": self.layout,
            "expected": self.expected,
            "found": self.found,
            "missing": self.missing,
            "faults": [fault._asdict() for fault in self.faults],
            "left_out": self.left_out,
            "percent": self.shares(),
        }


def check_pair(image: Path, label: Path, label_map: LabelMap, quick: bool = False) -> PairCheck:
    """Read one pair whole, or with ``quick`` its headers alone."""
    try:
        if pair_size(image, label) is None:
            sizes = size_mismatch(image, header_size(image), label, header_size(label))
            return PairCheck(fault=Fault(MISMATCHED, format_error(sizes)))
        if quick:
            return PairCheck()
        read_image(image)
        ids = read_ids(label, label_map.channel)
    except (OSError, ValueError, MemoryError) as error:
        return PairCheck(fault=Fault(UNREADABLE, format_error(error)))
    try:
        return PairCheck(pixels=_class_pixels(ids, label_map, label))
    except ValueError as error:
        return PairCheck(fault=Fault(UNKNOWN, format_error(error)))


def _class_pixels(ids: np.ndarray, label_map: LabelMap, file: Path) -> tuple[int, ...]:
    """Rows at a time: NumPy needs 16 bytes a pixel for this, which are many for 22 megapixels."""
    counts = np.zeros(256, np.int64)
    try:
        for rows in np.array_split(ids, 1 + ids.size // 2**20):
            counts += np.bincount(label_map.to_train_ids(rows, file).ravel(), minlength=256)
    except ValueError:
        label_map.to_train_ids(ids, file)  # its sentence counts the pixels: those of all rows
    return (*counts[: len(CLASSES)].tolist(), int(counts[IGNORE_LABEL]))


def check_sets(
    folders: Sequence[Folder], *, quick: bool = False, workers: int = 1
) -> list[SetReport]:
    """Check every dataset; a pair that several of them share is read once.

    Args:
        folders: registered datasets.
        quick: count the files and read their headers; no class shares.
        workers: processes that read; each needs memory for one image and its label.

    Raises:
        ValueError: ``workers`` is no number of processes.
        ChildProcessError: a process died, most likely of too little memory.
    """
    check_integer("workers", workers, least=1, most=512)
    listings = [_list(folder) for folder in folders]
    jobs = {
        (image, label, label_map.name): (image, label, label_map)
        for _, pairs, label_map in listings
        for _, image, label in pairs
    }
    seen: dict[tuple, PairCheck] = {}
    results = _read(list(jobs.values()), quick, workers)
    progress = tqdm(results, "checking", len(jobs), unit="pair", smoothing=0.05, disable=not jobs)
    for key, result in zip(jobs, progress, strict=True):
        seen[key] = result
    for folder, (report, pairs, label_map) in zip(folders, listings, strict=True):
        checks = [seen[image, label, label_map.name] for _, image, label in pairs]
        _conclude(report, checks, folder.skip_mismatched, quick)
    return [report for report, _, _ in listings]


def _list(folder: Folder) -> tuple[SetReport, list[Pair], LabelMap | None]:
    """What the folders hold, without opening a picture."""
    report = SetReport(folder.name, folder.origin.title if folder.origin else folder.name)
    report.expected = folder.expected
    try:
        root = folder.root
        report.looked_in = [
            f"{root / one.images} with {root / one.labels}" for one in folder.layouts
        ]
        layout = folder.layout()
        images, labels = folder.files()
        paired = [(key, images[key], labels[key]) for key in sorted(images.keys() & labels.keys())]
        pairs = folder.choose(paired)
        label_map = folder.read_label_map()
    except (OSError, ValueError) as error:
        report.missing = format_error(error)
        return report, [], None
    report.layout = f"{layout.images} with {layout.labels}"
    report.found = len(pairs)
    report.faults = [Fault(UNPAIRED, text) for text in folder.unpaired(images, labels)]
    if shortfall := folder.shortfall(len(pairs)):
        report.missing = f"{shortfall}; {folder.how_to_get()}"
    return report, pairs, label_map


def _conclude(
    report: SetReport, checks: list[PairCheck], skip_mismatched: bool, quick: bool
) -> None:
    for fault in (check.fault for check in checks if check.fault):
        if skip_mismatched and fault.kind == MISMATCHED:
            report.left_out.append(fault.sentence)
        else:
            report.faults.append(fault)
    if checks and not quick:
        pixels = [check.pixels for check in checks if check.pixels]
        report.pixels = [sum(column) for column in zip(*pixels)] if pixels else None


def _read(jobs: list[Job], quick: bool, workers: int) -> Iterator[PairCheck]:
    """The checks, in the order of ``jobs``."""
    if min(workers, len(jobs)) <= 1:
        yield from map(partial(_check_job, quick), jobs)
        return
    # Forked from a clean server: a fork of the caller could inherit locks of its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _begin_worker)
    try:
        yield from pool.map(partial(_check_job, quick), jobs, chunksize=8)
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process that reads the pictures has died, perhaps of too little memory: use fewer "
            "of them (--workers)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process


def _check_job(quick: bool, job: Job) -> PairCheck:
    return check_pair(*job, quick=quick)


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
