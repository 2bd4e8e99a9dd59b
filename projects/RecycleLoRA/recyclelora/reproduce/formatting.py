"""Functions for all reports: text tables, means with deviations, and descriptions of machines."""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

NOT_RUN = "*Not run yet.*"


def plain_table(rows: Iterable, headers: Sequence[str] | str) -> str:
    """Return a table for the terminal.

    Parameters
    ----------
    rows, headers
        Cells are printed unchanged.

    Returns
    -------
    str
        The text.
    """
    return tabulate(rows, headers, disable_numparse=True)


def markdown_table(rows: Iterable, headers: Sequence[str] | str) -> str:
    """Return a table in Markdown.

    Parameters
    ----------
    rows, headers
        Cells are printed unchanged.

    Returns
    -------
    str
        The text.
    """
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def mean_std(values: Sequence[float], digits: int) -> str:
    """Return the mean and, for at least two values, the standard deviation.

    >>> mean_std([70.0, 72.0], 1), mean_std([70.0], 2), mean_std([], 2)
    ('71.0 ± 1.4', '70.00', '')

    Parameters
    ----------
    values : Sequence[float]
        The values.
    digits : int
        Number of decimals.

    Returns
    -------
    str
        The text; empty if there are no values.

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
    """Read a result file.

    Parameters
    ----------
    file : Path
        The file.

    Returns
    -------
    dict
        The content.
    """
    return json.loads(file.read_text(encoding="utf-8"))


def machine_of(record: Mapping) -> str:
    """Return the machine of a result, and correct "1 CPU cores" in old records.

    Parameters
    ----------
    record : Mapping
        The environment of the result.

    Returns
    -------
    str
        The text.
    """
    return re.sub(r"\b1 (CPU core|thread)s\b", r"1 \1", record["machine"])


def commits_of(results: Iterable[Mapping]) -> str:
    """Return the commits of results, without repetition.

    Parameters
    ----------
    results : Iterable[Mapping]
        The results.

    Returns
    -------
    str
        The commits, separated by commas.
    """
    return ", ".join(sorted({result["environment"]["commit"] for result in results}))


def ran_on(*results: Mapping, packages: Sequence[str] = ()) -> str:
    """Return a sentence about the machine, versions and commits of results.

    Parameters
    ----------
    *results
        The results. Their machines are listed without repetition, the versions are those of the
        first.
    packages : Sequence[str]
        Names of packages whose versions are included.

    Returns
    -------
    str
        The sentence.
    """
    record = results[0]["environment"]
    found = {name: record["versions"][name] for name in ("torch", *packages)}
    versions = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    machines = "; on ".join(dict.fromkeys(machine_of(result["environment"]) for result in results))
    return f"On {machines}; {versions}, commit {commits_of(results)}."
