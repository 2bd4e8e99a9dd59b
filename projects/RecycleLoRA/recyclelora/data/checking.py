"""Check whether the datasets on disk are complete and readable: counts, class shares and faults."""

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
    """A fault of one file: its kind, and a message that names the file and the remedy."""

    kind: str
    message: str


class PairCheck(NamedTuple):
    """Result for one pair: ``pixels`` (20,) of each class and of "ignored", or the fault."""

    pixels: tuple[int, ...] | None = None
    fault: Fault | None = None


@dataclass
class DatasetReport:
    """Result for one dataset.

    Attributes
    ----------
    name, title : str
        The registered name, and the name in papers.
    looked_in : list of str
        All folders that were tried.
    layout : str, optional
        The folders that were found.
    expected : int, optional
        Number of pairs of the release; unknown for datasets of the user.
    found : int
        Number of pairs on disk.
    missing : str, optional
        What is missing, and what to do.
    faults : list of Fault
        Files that cannot be used.
    unpaired : str, optional
        How many images have no label, and how many labels no image.
    left_out : list of str
        Known faults of the release, which training skips.
    pixels : list of int, optional
        (20,) of each class and of "ignored"; None if only headers were read.
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
        """``missing``, ``faulty``, ``incomplete`` or ``complete``: the first that applies."""
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
    """Read one pair completely, or with ``quick`` only its headers."""
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
    """Count a few rows at a time, because ``bincount`` needs 16 bytes a pixel."""
    counts = np.zeros(256, np.int64)
    try:
        for rows in np.array_split(ids, 1 + ids.size // 2**20):
            counts += np.bincount(label_map.to_train_ids(rows, file).ravel(), minlength=256)
    except ValueError:
        label_map.to_train_ids(ids, file)  # its message counts the pixels of all rows
    return (*counts[: len(CLASSES)].tolist(), int(counts[IGNORE_LABEL]))


def check_datasets(
    datasets: Sequence[FolderDataset], *, quick: bool = False, workers: int = 1
) -> list[DatasetReport]:
    """Check datasets; a pair that belongs to several of them is read once.

    Parameters
    ----------
    datasets : sequence of FolderDataset
        The datasets.
    quick : bool
        Read only the headers of the files; there are no class shares then.
    workers : int
        Number of processes that read; each needs memory for one image and its label.

    Returns
    -------
    list of DatasetReport
        In the order of ``datasets``.

    Raises
    ------
    ValueError
        ``workers`` is no number of processes.
    ChildProcessError
        A process died, most likely because the memory is too small.
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
    """:func:`check_pair` of a job, as a function that worker processes can receive."""

    quick: bool

    def __call__(self, job: tuple[Path, Path, LabelMap]) -> PairCheck:
        return check_pair(*job, quick=self.quick)


def _list_pairs(
    dataset: FolderDataset,
) -> tuple[DatasetReport, list[Pair], LabelMap | None]:
    """List the pairs of a dataset without opening a file of it."""
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
