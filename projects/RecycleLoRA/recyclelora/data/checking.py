"""Checks whether datasets on disk are complete and readable: counts, class shares and faults."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.data import MapDataset
from tqdm import tqdm

from recyclelora.common.validation import check_integer, format_error

from .classes import CLASSES, IGNORE_LABEL
from .folder_dataset import FolderDataset, Pair
from .label_maps import LabelMap
from .reading import SizeMismatchError, pair_size, read_ids, read_image
from .workers import BatchLoader

UNPAIRED, UNREADABLE, MISMATCHED, UNKNOWN = "unpaired", "unreadable", "mismatched", "unknown value"


@dataclass(frozen=True)
class Fault:
    """A fault of a file: its kind and a message with the file name and a remedy."""

    kind: str
    message: str


class PairCheck(NamedTuple):
    """The result for one pair: ``pixels`` (20,) per class and for "ignored", or the fault."""

    pixels: tuple[int, ...] | None = None
    fault: Fault | None = None


@dataclass
class DatasetReport:
    """The result for one dataset.

    Attributes
    ----------
    name, title : str
        The registered name and the name in papers.
    looked_in : list of str
        All folders that were searched.
    layout : str, optional
        The folders that were found.
    expected : int, optional
        The number of pairs in the release; unknown for the user's own datasets.
    found : int
        The number of pairs on disk.
    missing : str, optional
        A description of what is missing and how to get it.
    faults : list of Fault
        The files that cannot be used.
    unpaired : str, optional
        The numbers of images without a label and of labels without an image.
    left_out : list of str
        Known faults of the release, which a training skips.
    pixels : list of int, optional
        The pixels (20,) of each class and of "ignored"; None if only headers were read.
    """

    name: str
    title: str
    looked_in: list[str] = field(default_factory=list)
    layout: str | None = None
    expected: int | None = None
    found: int = 0
    missing: str | None = None
    faults: list[Fault] = field(default_factory=list)
    unpaired: str | None = None
    left_out: list[str] = field(default_factory=list)
    pixels: list[int] | None = None

    @property
    def state(self) -> str:
        """Return ``missing``, ``faulty``, ``incomplete`` or ``complete``: the first that holds."""
        if self.layout is None:
            return "missing"
        if self.faults:
            return "faulty"
        return "incomplete" if self.missing else "complete"

    def shares(self) -> dict[str, float] | None:
        """Return the percentage of pixels by class name and of "ignored"; None without pixels."""
        if self.pixels is None:
            return None
        total = max(sum(self.pixels), 1)
        return {name: 100 * n / total for name, n in zip((*CLASSES, "ignored"), self.pixels)}

    def as_json(self) -> dict:
        """Return the report as plain values."""
        values = {"state": self.state} | asdict(self) | {"percent": self.shares()}
        values["faults"] = [{"kind": f.kind, "sentence": f.message} for f in self.faults]
        del values["name"], values["pixels"]
        return values


def check_pair(image: Path, label: Path, label_map: LabelMap, quick: bool = False) -> PairCheck:
    """Read one pair of image and label.

    Parameters
    ----------
    image, label : Path
        The files.
    label_map : LabelMap
        The meaning of the ids in the label file.
    quick : bool
        Whether to read only the headers.

    Returns
    -------
    PairCheck
        The pixels per class or the fault.
    """
    try:
        pair_size(image, label)
        if quick:
            return PairCheck()
        read_image(image)
        ids = read_ids(label, label_map.channel)
    except (OSError, ValueError, MemoryError) as error:
        kind = MISMATCHED if isinstance(error, SizeMismatchError) else UNREADABLE
        return PairCheck(fault=Fault(kind, format_error(error)))
    try:
        return PairCheck(pixels=_class_pixels(ids, label_map, label))
    except ValueError as error:
        return PairCheck(fault=Fault(UNKNOWN, format_error(error)))


def _class_pixels(ids: np.ndarray, label_map: LabelMap, file: Path) -> tuple[int, ...]:
    """Count the pixels a few rows at a time, because ``bincount`` needs 16 bytes per pixel."""
    counts = np.zeros(256, np.int64)
    try:
        for rows in np.array_split(ids, 1 + ids.size // 2**20):
            counts += np.bincount(label_map.to_train_ids(rows, file).ravel(), minlength=256)
    except ValueError:
        label_map.to_train_ids(ids, file)  # raises an error that counts the pixels of all rows
    return (*counts[: len(CLASSES)].tolist(), int(counts[IGNORE_LABEL]))


def check_datasets(
    datasets: Sequence[FolderDataset], *, quick: bool = False, workers: int = 1
) -> list[DatasetReport]:
    """Check datasets. A pair that belongs to several datasets is read once.

    Parameters
    ----------
    datasets : sequence of FolderDataset
        The datasets.
    quick : bool
        Whether to read only the headers of the files. Class shares are then not computed.
    workers : int
        The number of processes that read files. Each needs memory for one image and its label.

    Returns
    -------
    list of DatasetReport
        The results, in the order of ``datasets``.

    Raises
    ------
    ValueError
        If ``workers`` is not a valid number of processes.
    ChildProcessError
        If a process died, most likely because the memory was too small.
    """
    check_integer("workers", workers, least=1, most=512)
    listings = [_list_pairs(dataset) for dataset in datasets]
    jobs = {
        (image, label, label_map.name): (image, label, label_map)
        for _, pairs, label_map in listings
        for _, image, label in pairs
    }
    checks = MapDataset(list(jobs.values()), _Check(quick))
    batches = [range(start, min(start + 8, len(jobs))) for start in range(0, len(jobs), 8)]
    processes = min(workers, len(batches))
    loader = BatchLoader(checks, batches, num_workers=processes if processes > 1 else 0)
    results = (result for batch in loader for result in batch)
    progress = tqdm(results, "checking", len(jobs), unit="pair", smoothing=0.05, disable=not jobs)
    known = dict(zip(jobs, progress, strict=True))
    for dataset, (report, pairs, label_map) in zip(datasets, listings, strict=True):
        found = [known[image, label, label_map.name] for _, image, label in pairs]
        for fault in (check.fault for check in found if check.fault):
            if dataset.skip_mismatched and fault.kind == MISMATCHED:
                report.left_out.append(fault.message)
            else:
                report.faults.append(fault)
        pixels = [check.pixels for check in found if check.pixels]
        if pixels:
            report.pixels = np.sum(pixels, axis=0).tolist()
    return [report for report, _, _ in listings]


class _Check(NamedTuple):
    """:func:`check_pair` for a job, as a function that can be sent to worker processes."""

    quick: bool

    def __call__(self, job: tuple[Path, Path, LabelMap]) -> PairCheck:
        return check_pair(*job, quick=self.quick)


def _list_pairs(
    dataset: FolderDataset,
) -> tuple[DatasetReport, list[Pair], LabelMap | None]:
    """List the pairs of a dataset without opening its files."""
    title = dataset.source.title if dataset.source else dataset.name
    report = DatasetReport(dataset.name, title, expected=dataset.expected)
    try:
        root = dataset.root
        report.looked_in = [
            f"{root / one.images} with {root / one.labels}" for one in dataset.layouts
        ]
        layout = dataset.layout()
        images, labels = dataset.files()
        pairs = dataset.match(images, labels)
        label_map = dataset.read_label_map()
    except (OSError, ValueError) as error:
        report.missing = format_error(error)
        return report, [], None
    report.layout = str(layout)
    report.found = len(pairs)
    unpaired = dataset.unpaired(images, labels)
    messages = [message + unpaired.hint for message in unpaired.messages]
    if messages:
        report.unpaired = unpaired.counts()
    if dataset.skip_unpaired:
        report.left_out = messages
    else:
        report.faults = [Fault(UNPAIRED, message) for message in messages]
    if warning := dataset.size_warning(len(pairs)):
        report.missing = f"{warning}; {dataset.download_hint()}"
    return report, pairs, label_map
