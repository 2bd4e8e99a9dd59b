#!/usr/bin/env python
"""Are the datasets below DETECTRON2_DATASETS whole and readable?

    python tools/check_datasets.py cityscapes_val bdd100k_val mapillary_vistas_val
    python tools/check_datasets.py --quick --json datasets.json

For each set (without names: every benchmark): where it was looked for, pairs found and expected,
the share of each class, files that are unpaired, unreadable, of another size than their image or
with unknown label values, and what to download where something is missing. Everything is read once;
--quick reads the headers alone.

Exit code: 0 every set is complete and clean; 1 the check could not run; 2 the command line;
3 a set or a part of one is missing; 4 files are faulty. Known faults of a release (GTAV's labels of
another size than their image), which training leaves out, are listed and are not counted.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.validation import format_error
from recyclelora.data.benchmarks import BENCHMARKS
from recyclelora.data.checking import SetReport, check_sets, usable_cores
from recyclelora.data.datasets import folder_of

SHOWN = 5  # sentences of one kind on the terminal; the JSON file has all
COLUMNS = 8  # datasets side by side


def overview(reports: list[SetReport]) -> str:
    """A row for every dataset."""
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


def class_shares(reports: list[SetReport]) -> str:
    """Percent of the pixels: a row for every class, a column for every dataset that was read."""
    shares = {report.name: report.shares() for report in reports if report.pixels}
    tables = []
    for start in range(0, len(shares), COLUMNS):
        names = list(shares)[start : start + COLUMNS]
        rows = [[label, *(shares[name][label] for name in names)] for label in shares[names[0]]]
        tables.append(tabulate(rows, headers=["percent", *names], floatfmt=".2f"))
    return "\n\n".join(tables)


def missing(reports: list[SetReport]) -> Iterator[str]:
    """What is not there, once for all sets of one download, and what is there in part."""
    absent: dict[str, list[SetReport]] = {}
    for report in reports:
        if report.state == "missing":
            absent.setdefault(report.title, []).append(report)
        elif report.missing:
            yield report.missing
    for first, *others in absent.values():
        yield first.missing
        if others:
            yield f"    and so {', '.join(report.name for report in others)}"


def faulty(report: SetReport) -> list[str]:
    """The first faults of every kind."""
    said = []
    kinds: dict[str, list[str]] = {}
    for kind, sentence in report.faults:
        kinds.setdefault(kind, []).append(sentence)
    if report.left_out:
        kinds["left out, a known fault of the release"] = report.left_out
    for kind, faults in kinds.items():
        said += [f"{report.name}: {kind}: {one}" for one in faults[:SHOWN]]
        if len(faults) > SHOWN:
            more = len(faults) - SHOWN
            said.append(f"{report.name}: {kind}: {more} more; --json FILE lists all")
    return said


def exit_code(reports: list[SetReport]) -> int:
    """As documented above."""
    states = {report.state for report in reports}
    return 4 if "faulty" in states else 3 if states - {"complete"} else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="registered datasets; without: every benchmark")
    parser.add_argument("--quick", action="store_true", help="count files and read headers alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it to FILE")
    parser.add_argument(
        "--workers", type=int, default=min(usable_cores(), 8), help="processes that read"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Check; ends with the exit code above."""
    args = parse(arguments)
    try:
        names = list(dict.fromkeys(args.names)) or [folder.name for folder in BENCHMARKS]
        folders = [folder_of(name) for name in names]
        if args.json and (args.json.is_dir() or not args.json.parent.is_dir()):
            raise ValueError(f"--json: expected a file in a folder that is there, got {args.json}")
        reports = check_sets(folders, quick=args.quick, workers=args.workers)
        if args.json:
            found = {report.name: report.as_json() for report in reports}
            with atomic_write(args.json) as temporary:
                temporary.write_text(json.dumps({"quick": args.quick, "sets": found}, indent=1))
    except KeyboardInterrupt:
        sys.exit("stopped; nothing is kept, so the next check begins anew")
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    for sentence in [*missing(reports), *(one for report in reports for one in faulty(report))]:
        print(sentence)
    print(f"\n{overview(reports)}")
    if not args.quick and any(report.pixels for report in reports):
        print(f"\n{class_shares(reports)}")
    sys.exit(exit_code(reports))


if __name__ == "__main__":
    main()
