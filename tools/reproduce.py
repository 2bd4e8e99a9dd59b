#!/usr/bin/env python
"""Run the rows of a table, one after the other, and write the table beside the published numbers.

    python tools/reproduce.py --list
    python tools/reproduce.py --table 3 --row 17 --dry-run
    python tools/reproduce.py --table 9 11 --seeds 0 1 2 --num-gpus 4
    nohup python tools/reproduce.py --table streets_to_real > reproduce.log 2>&1 &
    python tools/reproduce.py --table 5 --scratch /tmp/try train.max_iter=20

Tables 3 to 12 are the paper's; a row is its number as printed, or the name of its config. What is
finished is skipped, what was interrupted is resumed: stop it with Ctrl-C or SIGTERM and run it
again. The same command in several processes or on several machines with one shared folder shares
the runs out; give each process its GPU by CUDA_VISIBLE_DEVICES.

A run writes to ``output/TABLE/ROW_seedN`` and, as it ends, to ``results/TABLE/ROW_seedN.json``;
those of the paper's tables to ``paper/CONFIG_seedN``, once for all tables they stand in. The table
is printed and written to ``results/tables/`` as Markdown and CSV. Overrides ``key=value`` hold for
every run and need ``--scratch FOLDER``, which takes everything that is written.
"""

import argparse
import datetime
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from recyclelora.common.validation import check_integer, format_error
from recyclelora.reproduce.paper_tables import (
    listing,
    write_hyperparameters,
    write_small,
    write_table,
)
from recyclelora.reproduce.published import PAPER_TABLES
from recyclelora.reproduce.runs import STOPPED, Busy, Place, complete, row_of
from recyclelora.reproduce.tables import TABLES, Run, runs_of

POLL = 20  # seconds between two looks at what other processes do


def time_left(runs: Sequence[Run], place: Place) -> str:
    """What the runs still to do need, if each takes as long as those that are done."""
    results = [result for run in runs if (result := place.finished(run)) and result["iterations"]]
    if not results:
        return "time left unknown"
    each = sum(result["seconds"] for result in results) / len(results)
    left = sum(place.finished(run) is None for run in runs)
    return f"{datetime.timedelta(seconds=round(each * left))} left"


def work_off(runs: Sequence[Run], place: Place) -> list[str]:
    """All runs that are not finished; one that fails does not keep the others from running.

    What another process does is left to it, and waited for once there is nothing else to do: it is
    taken over should that process end without a result.

    Returns:
        The names of runs that failed.
    """
    failed, left, waiting = [], list(enumerate(runs, 1)), False
    while left:
        busy = []
        for number, run in left:
            at = f"[{number} of {len(runs)}] {run.table} {run.name}"
            if place.finished(run):
                print(f"{at}: finished before", flush=True)
                continue
            try:
                if not waiting:
                    print(f"{at}: begins, {time_left(runs, place)}", flush=True)
                result = complete(run, place)
            except Busy as error:
                if not waiting:
                    print(f"{at}: left for now, {error}", flush=True)
                busy.append((number, run))
                continue
            except (ValueError, OSError) as error:
                print(f"error: {format_error(error)}", file=sys.stderr, flush=True)
                failed.append(run.name)
                continue
            score = f"mean mIoU {result['result']['mean_mIoU']:.1f} after {result['seconds']:.0f} s"
            print(f"{at}: {score}, {time_left(runs, place)}", flush=True)
        waiting = len(busy) == len(left)
        left = busy
        if waiting:
            time.sleep(POLL)
    return failed


def small_listing(runs: Sequence[Run], place: Place) -> str:
    """A line for every run of the tables that are not the paper's: how far it is."""
    lines = []
    for run in runs:
        result = place.finished(run)
        state = "begun" if place.folder(run).is_dir() else "to do"
        cells = [state, "", ""]
        if result:
            cells = ["finished", f"{result['result']['mean_mIoU']:.1f}", f"{result['seconds']:.0f}"]
        lines.append([run.table, run.row, run.seed, *cells])
    headers = ["table", "row", "seed", "state", "mean mIoU", "seconds"]
    return tabulate(lines, headers, disable_numparse=True)


def known_tables() -> list[str]:
    """All names that --table takes."""
    ours = [name for name, table in TABLES.items() if not table.published]
    return [*ours, *map(str, range(3, 13)), "beyond"]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="reproduce.py [options] [key=value ...]",
    )
    known, add = known_tables(), parser.add_argument
    add("--table", nargs="+", choices=known, metavar="TABLE", help=", ".join(known))
    add("--row", nargs="+", help="only these; --list shows their numbers and names")
    add("--seeds", nargs="+", type=int, help="only these; for the paper's tables any, default 0")
    add("--list", action="store_true", help="show every row: published, runnable, what came of it")
    add("--dry-run", action="store_true", help="show the commands that are left to run")
    add("--collect", action="store_true", help="run nothing, write the tables of what is finished")
    add("--num-gpus", type=int, default=1, help="of this machine, for each run (default: 1)")
    add("--scratch", type=Path, help="folder for runs that are not the table's own")
    arguments = sys.argv[1:] if arguments is None else arguments
    # Taken out first: the options that take several values would swallow them.
    overrides = [one for one in arguments if "=" in one and not one.startswith("-")]
    args = parser.parse_args([one for one in arguments if one not in overrides])
    args.overrides, args.named = overrides, args.table is not None
    args.table = args.table or known
    return args


def rows_of(table: str, seeds: Sequence[int] | None) -> list[tuple[tuple[str, ...], Run | None]]:
    """The names of every row and its run, in the order to run; None for a row that is quoted."""
    if table in TABLES:
        return [((run.row,), run) for run in runs_of(table)]
    found = []
    for seed in seeds or [0]:
        for row in PAPER_TABLES[table].rows if table in PAPER_TABLES else ():
            names = (str(row.row), *([row.config] if row.config else []))
            found.append((names, Run("paper", row.config, seed) if row.config else None))
    return found


def selected(args: argparse.Namespace) -> list[Run]:
    """The runs that the command line asks for, each once."""
    offered = [found for table in args.table for found in rows_of(table, args.seeds)]
    tables = ", ".join(args.table)
    for what, wanted, known in (
        ("row", args.row, {name for names, _ in offered for name in names}),
        ("seed", args.seeds, {run.seed for _, run in offered if run}),
    ):
        if unknown := set(wanted or ()) - known:
            raise ValueError(
                f"no {what} {unknown.pop()} in {tables}: there are "
                f"{', '.join(map(str, sorted(known, key=in_order)))}"
            )
    if args.row is not None:
        offered = [(names, run) for names, run in offered if set(names) & set(args.row)]
        quoted = [names[0] for names, run in offered if run is None]
        if quoted and not args.list:
            raise ValueError(
                f"row {quoted[0]} of table {tables} is quoted from the paper: no config here runs "
                "it, see --list"
            )
    runs = [run for _, run in offered if run and (not args.seeds or run.seed in args.seeds)]
    return list(dict.fromkeys(runs))


def in_order(name: str | int) -> tuple[int, str]:
    """Numbers by size, then names."""
    return (int(name), "") if str(name).isdecimal() else (10**9, str(name))


def main(arguments: Sequence[str] | None = None) -> None:
    """List, show or run; bad input ends in one sentence and exit code 1."""
    args = parse(arguments)
    try:
        check_integer("--num-gpus", args.num_gpus, least=1, most=1024)
        place = Place(args.scratch, args.overrides, args.num_gpus)
        if not (args.named or args.list):
            raise ValueError(
                f"which tables? --table takes any of {', '.join(known_tables())}; --list shows "
                "their rows"
            )
        runs = selected(args)
        for seed in args.seeds or ():
            check_integer("a seed", seed, least=0, most=2**32 - 1)
        if args.list:
            small = [run for run in runs if not TABLES[run.table].published]
            papers = [table for table in args.table if table in PAPER_TABLES]
            parts = ([small_listing(small, place)] if small else []) + [
                listing(table, place, args.seeds) for table in papers
            ]
            print("\n\n".join(parts))
        elif args.dry_run:
            for run in (run for run in runs if not place.finished(run)):
                trains = row_of(run).trains
                print(shlex.join(place.command(run)) if trains else f"# {run.name}: counts labels")
        else:
            failed = [] if args.collect else work_off(runs, place)
            for table in args.table:
                if table in PAPER_TABLES:
                    print(f"\n{write_table(table, place, args.seeds)}")
                elif table in TABLES:
                    print(f"\n{write_small(table, place)}")
                else:
                    print(f"\n{write_hyperparameters(place)}")
            if failed:
                names = ", ".join(dict.fromkeys(failed))
                sys.exit(f"error: without a result: {names}; run it again to go on")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {format_error(error)}")
    except KeyboardInterrupt:
        print(STOPPED, flush=True)


if __name__ == "__main__":
    main()
