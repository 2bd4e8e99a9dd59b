"""What all reports share: text tables, means with deviations, and machines in words."""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

NOT_RUN = "*Not run yet.*"


def plain_table(rows: Iterable, headers: Sequence[str] | str) -> str:
    """A table for the terminal; cells are printed as they are."""
    return tabulate(rows, headers, disable_numparse=True)


def markdown_table(rows: Iterable, headers: Sequence[str] | str) -> str:
    """The same table in Markdown."""
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def mean_std(values: Sequence[float], digits: int) -> str:
    """Mean, and standard deviation where there are at least two values; empty where there are none.

    Examples
    --------
    >>> mean_std([70.0, 72.0], 1), mean_std([70.0], 2), mean_std([], 2)
    ('71.0 ± 1.4', '70.00', '')
    """
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def read_json(file: Path) -> dict:
    """The content of a result file."""
    return json.loads(file.read_text(encoding="utf-8"))


def machine_of(record: Mapping) -> str:
    """What a result ran on; old records have "1 CPU cores"."""
    return re.sub(r"\b1 (CPU core|thread)s\b", r"1 \1", record["machine"])


def commits_of(results: Iterable[Mapping]) -> str:
    """The commits of results, each once."""
    return ", ".join(sorted({result["environment"]["commit"] for result in results}))


def ran_on(*results: Mapping, packages: Sequence[str] = ()) -> str:
    """One sentence on results of one machine: the machine, versions, commits."""
    record = results[0]["environment"]
    found = {name: record["versions"][name] for name in ("torch", *packages)}
    versions = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    return f"On {machine_of(record)}; {versions}, commit {commits_of(results)}."
