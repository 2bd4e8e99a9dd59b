"""List the runs of a command line, print their commands, or run them one after another."""

import datetime
import shlex
import sys
import time
from collections.abc import Sequence

from recyclelora.common.folder_lock import FolderLockedError
from recyclelora.common.validation import check_integer, format_error

from .learned import measure_run
from .paper_tables import (
    list_runs,
    list_table,
    write_hyperparameters,
    write_small_table,
    write_table,
)
from .runs import finish_run
from .tables import SMALL_TABLES, Run, runs_of
from .workspace import Workspace

POLL_SECONDS = 20  # time between two attempts to lock runs that other processes have locked
TABLE_NAMES = (*SMALL_TABLES, *map(str, range(3, 13)), "beyond")


def reproduce(
    workspace: Workspace,
    tables: Sequence[str] | None,
    *,
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    action: str = "run",
) -> None:
    """List, show or run the rows of tables, and write the tables.

    Parameters
    ----------
    workspace : Workspace
        The folders of the runs.
    tables : sequence of str, optional
        Names from ``TABLE_NAMES``. Only "list" works without them; it then lists all tables.
    rows : sequence of str, optional
        Printed numbers, or names. All rows by default.
    seeds : sequence of int, optional
        For the paper's tables any seeds, by default 0.
    action : str
        "list" prints the state of every row, "dry_run" prints the remaining commands, "collect"
        only writes the tables, "measure" measures the adapters of finished runs, and "run" runs the
        remaining rows and then writes the tables.

    Raises
    ------
    ValueError
        If a row or seed is unknown, or, after all runs have ended, if a run failed.
    FileNotFoundError
        If adapters cannot be measured because a checkpoint does not exist.
    """
    check_integer("--num-gpus", workspace.num_gpus, least=1, most=1024)
    if tables is None and action != "list":
        raise ValueError(
            f"expected names of tables, got none: give --table with any of "
            f"{', '.join(TABLE_NAMES)}; --list shows their rows"
        )
    tables = tables or TABLE_NAMES
    runs = select_runs(workspace, tables, rows, seeds, quoted=action == "list")
    for seed in seeds or ():
        check_integer("a seed", seed, least=0, most=2**32 - 1)
    if action == "list":
        small = [run for run in runs if run.table in SMALL_TABLES]
        parts = [list_runs(small, workspace)] if small else []
        papers = [name for name in tables if name in workspace.published.tables]
        print("\n\n".join([*parts, *(list_table(name, workspace, seeds) for name in papers)]))
    elif action == "dry_run":
        for run in runs:
            if not workspace.result_of(run):
                trains = workspace.row_of(run).trains
                command = shlex.join(workspace.command(run))
                print(command if trains else f"# {run.name}: counts the labels, without a training")
    elif action == "measure":
        for run in runs:
            print(f"wrote {measure_run(run, workspace)}")
    else:
        failed = [] if action == "collect" else run_all(runs, workspace)
        for name in tables:
            print(f"\n{_write(name, workspace, seeds)}")
        if failed:
            names = ", ".join(dict.fromkeys(failed))
            raise ValueError(f"no result for {names}; run the command again to continue")


def _write(name: str, workspace: Workspace, seeds: Sequence[int] | None) -> str:
    """Write a table and return it for a terminal."""
    if name in workspace.published.tables:
        return write_table(name, workspace, seeds)
    if name in SMALL_TABLES:
        return write_small_table(name, workspace)
    return write_hyperparameters(workspace)


def run_all(runs: Sequence[Run], workspace: Workspace) -> list[str]:
    """Run all runs that are not finished; a failed run does not stop the others.

    A run that another process has locked is postponed until no other runs are left. Then this
    function waits for it, and runs it if the other process ends without a result.

    Parameters
    ----------
    runs : Sequence[Run]
        The runs.
    workspace : Workspace
        The folders of the runs.

    Returns
    -------
    list of str
        The names of the failed runs.
    """
    failed, left, waiting = [], list(enumerate(runs, 1)), False
    while left:
        locked = []
        for number, run in left:
            at = f"[{number} of {len(runs)}] {run.table} {run.name}"
            if workspace.result_of(run):
                print(f"{at}: already finished", flush=True)
                continue
            try:
                if not waiting:
                    print(f"{at}: started, {time_left(runs, workspace)}", flush=True)
                result = finish_run(run, workspace)
            except FolderLockedError as error:
                if not waiting:
                    print(f"{at}: postponed, {error}", flush=True)
                locked.append((number, run))
                continue
            except (ValueError, OSError) as error:
                print(f"error: {format_error(error)}", file=sys.stderr, flush=True)
                failed.append(run.name)
                continue
            score = f"mean mIoU {result['result']['mean_mIoU']:.1f} after {result['seconds']:.0f} s"
            print(f"{at}: {score}, {time_left(runs, workspace)}", flush=True)
        waiting = len(locked) == len(left)
        left = locked
        if waiting:
            time.sleep(POLL_SECONDS)
    return failed


def time_left(runs: Sequence[Run], workspace: Workspace) -> str:
    """Estimate the time of the remaining runs from the mean time of the finished ones.

    Parameters
    ----------
    runs : Sequence[Run]
        All runs.
    workspace : Workspace
        The folders of the runs.

    Returns
    -------
    str
        The text.
    """
    results = [workspace.result_of(run) for run in runs]
    trained = [result["seconds"] for result in results if result and result["iterations"]]
    if not trained:
        return "time left unknown"
    left = results.count(None) * sum(trained) / len(trained)
    return f"{datetime.timedelta(seconds=round(left))} left"


def select_runs(
    workspace: Workspace,
    tables: Sequence[str],
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    *,
    quoted: bool = False,
) -> list[Run]:
    """Return the runs of tables, without repetition, in the order in which to run them.

    Parameters
    ----------
    workspace : Workspace
        The folders of the runs.
    tables : Sequence[str]
        Names of the tables.
    rows, seeds
        See :func:`reproduce`.
    quoted : bool
        Whether rows that are only quoted from the paper are accepted; they are left out.

    Returns
    -------
    list[Run]
        The runs.

    Raises
    ------
    ValueError
        If a row or seed is unknown, or if ``quoted`` is False and a given row is only quoted.
    """
    offered = [found for name in tables for found in _runs_by_names(workspace, name, seeds)]
    for what, wanted, known in (
        ("row", rows, {name for names, _ in offered for name in names}),
        ("seed", seeds, {run.seed for _, run in offered if run}),
    ):
        if unknown := set(wanted or ()) - known:
            raise ValueError(
                f"there is no {what} {unknown.pop()} in {', '.join(tables)}: choose from "
                f"{', '.join(map(str, sorted(known, key=_sort_key)))}"
            )
    if rows is not None:
        offered = [(names, run) for names, run in offered if set(names) & set(rows)]
        without = [names[0] for names, run in offered if run is None]
        if without and not quoted:
            raise ValueError(
                f"row {without[0]} of table {', '.join(tables)} is only quoted from the paper and "
                "has no config to run: see --list"
            )
    return list(dict.fromkeys(r for _, r in offered if r and (not seeds or r.seed in seeds)))


def _runs_by_names(
    workspace: Workspace, name: str, seeds: Sequence[int] | None
) -> list[tuple[tuple[str, ...], Run | None]]:
    """Return the names and the run of every row of a table. The run is None for a quoted row."""
    if name in SMALL_TABLES:
        return [((run.row,), run) for run in runs_of(name, SMALL_TABLES[name])]
    table = workspace.published.tables.get(name)
    return [
        ((str(row.row), row.name), Run("paper", row.name, seed))
        if row.name
        else ((str(row.row),), None)
        for seed in seeds or [0]
        for row in (table.rows if table else ())
    ]


def _sort_key(name: str | int) -> tuple[int, str]:
    """Return a key that sorts numbers by size, followed by names."""
    return (int(name), "") if str(name).isdecimal() else (10**9, str(name))
