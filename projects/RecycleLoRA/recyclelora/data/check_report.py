"""The report of ``tools/check_datasets.py``: tables and messages for the terminal, and JSON."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from recyclelora.common.atomic_write import atomic_write

from .benchmarks import BENCHMARKS
from .checking import DatasetReport, check_datasets
from .datasets import get_dataset

_SHOWN = 5  # messages of each kind on the terminal; the JSON file contains all
_COLUMNS = 8  # datasets in one table of class shares


def report_datasets(
    names: Sequence[str] = (),
    *,
    quick: bool = False,
    workers: int = 1,
    json_file: Path | None = None,
) -> tuple[str, int]:
    """Check datasets and describe the result.

    Parameters
    ----------
    names : sequence of str
        The registered datasets. Without names, all benchmarks are checked.
    quick : bool
        Whether to read only the headers of the files.
    workers : int
        The number of processes that read files.
    json_file : Path, optional
        The file for the complete result.

    Returns
    -------
    text : str
        The report for the terminal.
    exit_code : int
        0 if all datasets are complete, 3 if something is missing, 4 if files are faulty.
    """
    names = list(dict.fromkeys(names)) or [dataset.name for dataset in BENCHMARKS]
    datasets = [get_dataset(name) for name in names]
    if json_file and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise ValueError(f"--json: expected a file in a folder that exists, got {json_file}")
    reports = check_datasets(datasets, quick=quick, workers=workers)
    if json_file:
        found = {report.name: report.as_json() for report in reports}
        with atomic_write(json_file) as temporary:
            text = json.dumps({"quick": quick, "sets": found}, indent=1)
            temporary.write_text(text, encoding="utf-8")
    messages = [*_missing(reports), *(line for report in reports for line in _faults(report))]
    text = "\n".join([*messages, "", _overview(reports), *_class_shares(reports)])
    states = {report.state for report in reports}
    return text, 4 if "faulty" in states else 3 if states - {"complete"} else 0


def _overview(reports: list[DatasetReport]) -> str:
    """Return a table with a row for every dataset."""
    rows = [
        {
            "set": report.name,
            "state": report.state,
            "pairs": report.found,
            "expected": report.expected,
            "faults": len(report.faults),
            "left out": len(report.left_out),
            "found as": report.layout,
        }
        for report in reports
    ]
    return tabulate(rows, headers="keys", missingval="-", intfmt=",")


def _class_shares(reports: list[DatasetReport]) -> Iterator[str]:
    """Yield tables of percentages: a row for every class, a column for every dataset."""
    shares = {report.name: report.shares() for report in reports if report.pixels}
    for start in range(0, len(shares), _COLUMNS):
        names = list(shares)[start : start + _COLUMNS]
        rows = [[label, *(shares[name][label] for name in names)] for label in shares[names[0]]]
        yield "\n" + tabulate(rows, headers=["percent", *names], floatfmt=".2f")


def _missing(reports: list[DatasetReport]) -> Iterator[str]:
    """Yield what is incomplete or absent, with one message for all datasets of a download."""
    absent: dict[str, list[DatasetReport]] = {}
    for report in reports:
        if report.state == "missing":
            absent.setdefault(report.title, []).append(report)
        elif report.missing:
            yield report.missing
    for first, *others in absent.values():
        yield first.missing
        if others:
            yield f"    the same download contains {', '.join(report.name for report in others)}"


def _faults(report: DatasetReport) -> Iterator[str]:
    """Yield the first faults of every kind."""
    kinds: dict[str, list[str]] = {}
    if report.unpaired:
        yield f"{report.name}: {report.unpaired}"
    for fault in report.faults:
        kinds.setdefault(fault.kind, []).append(fault.message)
    if report.left_out:
        kinds["left out, a known fault of the release"] = report.left_out
    for kind, messages in kinds.items():
        for message in messages[:_SHOWN]:
            yield f"{report.name}: {kind}: {message}"
        if len(messages) > _SHOWN:
            more = len(messages) - _SHOWN
            yield f"{report.name}: {kind}: {more} more; --json FILE lists all"
