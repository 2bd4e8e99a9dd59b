#!/usr/bin/env python
"""Run the rows of a table, one after the other, and keep each run's result as JSON.

    python tools/reproduce.py --list
    python tools/reproduce.py --table streets_to_real
    nohup python tools/reproduce.py --table streets_to_real > output/reproduce.log 2>&1 &
    python tools/reproduce.py --table streets_to_real --row lora recyclelora --seeds 0 --dry-run
    python tools/reproduce.py --table streets_to_real --scratch /tmp/try train.max_iter=20

What is finished is skipped, what was interrupted is resumed: stop it with Ctrl-C or SIGTERM and
run it again. A run writes to ``output/TABLE/ROW_seedN`` and, as it ends, to
``results/TABLE/ROW_seedN.json``, of which ``tools/update_readme.py`` makes the README's tables.
Streets are drawn once for all. Overrides ``key=value`` hold for every run and need
``--scratch FOLDER``, which takes everything that is written.
"""

import argparse
import contextlib
import datetime
import fcntl
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from tabulate import tabulate

from benchmark import measure
from recyclelora.bad_input import sentence_of
from recyclelora.data.streets import write_streets
from recyclelora.devices import pick_device
from recyclelora.engine.overrides import apply_overrides
from recyclelora.evaluation import constant_prediction, evaluate_domains, majority_class
from recyclelora.evaluation.domains import write_json
from tables import ROOT, TABLES, Run, Table, runs_of

TRAIN = "tools/lazyconfig_train_net.py"
STREETS_SEED = 0
STOPPED = "stopped; the same command goes on from here"


class Place:
    """Where runs write, and what is common to all of them."""

    def __init__(self, scratch: Path | None, overrides: Sequence[str]):
        if overrides and scratch is None:
            raise ValueError(
                f"{overrides[0]} makes these other runs than the table's: give --scratch FOLDER "
                "for what they write"
            )
        self.output = ROOT / "output" if scratch is None else scratch.absolute()
        self.results = ROOT / "results" if scratch is None else self.output / "results"
        self.overrides = tuple(overrides)

    def folder(self, run: Run) -> Path:
        """The output folder of a run."""
        return self.output / run.table / run.name

    def overrides_of(self, run: Run) -> list[str]:
        """All that makes the table's config this run, but for its folder."""
        row = TABLES[run.table].rows[run.row]
        return [*row.overrides, f"train.seed={run.seed}", *self.overrides]

    def config_of(self, run: Run) -> DictConfig:
        """The run's config as the training tool sees it."""
        cfg = LazyConfig.load(str(ROOT / TABLES[run.table].config))
        return apply_overrides(cfg, self.overrides_of(run))

    def command(self, run: Run) -> list[str]:
        """What trains and evaluates it."""
        config, folder = TABLES[run.table].config, self.folder(run)
        if folder.is_relative_to(ROOT):
            folder = folder.relative_to(ROOT)
        tool = ["python", TRAIN, "--config-file", config, "--resume"]
        return [*tool, f"train.output_dir={folder}", *self.overrides_of(run)]

    def finished(self, run: Run) -> dict | None:
        """The result of a run that has ended."""
        file = run.result(self.results)
        if not file.is_file():
            return None
        result = json.loads(file.read_text())
        if result["overrides"] != self.overrides_of(run):
            raise ValueError(
                f"{file} is of a run with {' '.join(result['overrides'])}, not with "
                f"{' '.join(self.overrides_of(run))}: delete it or choose another --scratch"
            )
        return result


def draw(table: Table, cfg: DictConfig) -> dict:
    """Draw what is not there of the table's streets; returns their settings by domain."""
    settings = {}
    for domain, count in table.streets.items():
        root = ROOT / cfg.dataloader.streets / domain
        file = root / "dataset.json"
        there = json.loads(file.read_text()) if file.is_file() else {}
        if not there.get("complete") or there.get("count", 0) < count:
            write_streets(root, domain=domain, count=count, seed=STREETS_SEED)
            there = json.loads(file.read_text())
        settings[domain] = {k: v for k, v in there.items() if not isinstance(v, dict)}
    return settings


@contextlib.contextmanager
def held(folder: Path) -> Iterator[int]:
    """Hold a run's folder, also through a child that is given the yielded file descriptor."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder} is being written by another process: wait for it or stop it"
            ) from None
        yield lock.fileno()


def call(command: Sequence[str], lock: int) -> int:
    """The exit status of a command; SIGTERM and Ctrl-C end it, and after it this program."""
    child, stopped = None, []

    def stop(*_: object) -> None:
        stopped.append(True)
        if child is not None:
            child.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # A session of its own, so that Ctrl-C reaches it through us, and as SIGTERM.
        command = [sys.executable, *command[1:]]
        child = subprocess.Popen(command, cwd=ROOT, pass_fds=[lock], start_new_session=True)
        if stopped:
            child.terminate()
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        print(STOPPED, flush=True)
        sys.exit(0)  # as the training tool: what was asked for was done
    return status


def train(run: Run, place: Place) -> float:
    """Train and evaluate; returns the seconds of all attempts together."""
    folder, start = place.folder(run), time.monotonic()
    with held(folder) as lock:
        status = call(place.command(run), lock)
        with (folder / "seconds.txt").open("a") as file:
            file.write(f"{time.monotonic() - start:.1f}\n")
    last = folder / f"iter_{place.config_of(run).train.max_iter:07d}.pth"
    missing = [file.name for file in (last, folder / "domains.json") if not file.is_file()]
    if status or missing:
        raise ValueError(f"{run.table} {run.name} did not end well (status {status}): see above")
    return sum(map(float, (folder / "seconds.txt").read_text().split()))


def count_majority(run: Run, place: Place) -> float:
    """Score the source's majority class, in this process; returns the seconds it took."""
    start, cfg = time.monotonic(), place.config_of(run)
    records = instantiate(cfg.dataloader.train).dataset.records
    evaluate_domains(
        constant_prediction(majority_class(records)),
        {name: instantiate(loader) for name, loader in cfg.dataloader.test.items() if loader},
        protocol=instantiate(cfg.evaluation.protocol),
        output_dir=place.folder(run),
    )
    return time.monotonic() - start


def complete(run: Run, place: Place) -> dict:
    """Do one run, whatever of it is left, and write its JSON."""
    table, cfg = TABLES[run.table], place.config_of(run)
    row, folder = table.rows[run.row], place.folder(run)
    streets = draw(table, cfg)
    seconds = train(run, place) if row.trains else count_majority(run, place)
    result = {
        "table": run.table,
        "row": run.row,
        "label": row.label,
        "seed": run.seed,
        "config": table.config,
        "overrides": place.overrides_of(run),
        "iterations": cfg.train.max_iter if row.trains else 0,
        "batch": cfg.dataloader.train.total_batch_size,
        "seconds": round(seconds, 1),
        "streets": streets,
        "environment": measure.environment(pick_device(cfg.train.device)),
        "result": json.loads((folder / "domains.json").read_text()),
        "one_class": json.loads((folder / "one_class.json").read_text()),
    }
    write_json(run.result(place.results), result)
    return result


def time_left(runs: Sequence[Run], place: Place) -> str:
    """What the runs still to do need, if each takes as long as those that are done."""
    results = [result for run in runs if (result := place.finished(run)) and result["iterations"]]
    if not results:
        return "time left unknown"
    each = sum(result["seconds"] for result in results) / len(results)
    left = sum(place.finished(run) is None for run in runs)
    return f"{datetime.timedelta(seconds=round(each * left))} left"


def work_off(runs: Sequence[Run], place: Place) -> None:
    """All runs that are not finished; one that fails does not keep the others from running."""
    failed = []
    for number, run in enumerate(runs, 1):
        at = f"[{number} of {len(runs)}] {run.table} {run.name}"
        if place.finished(run):
            print(f"{at}: finished before", flush=True)
            continue
        print(f"{at}: begins, {time_left(runs, place)}", flush=True)
        try:
            result = complete(run, place)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            failed.append(run.name)
            continue
        score = f"mean mIoU {result['result']['mean_mIoU']:.1f} after {result['seconds']:.0f} s"
        print(f"{at}: {score}, {time_left(runs, place)}", flush=True)
    if failed:
        sys.exit(f"error: without a result: {', '.join(failed)}; run it again to go on")


def listing(runs: Sequence[Run], place: Place) -> str:
    """A line for every run: what came of it, or how far it is."""
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


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="reproduce.py [options] [key=value ...]",
    )
    add = parser.add_argument
    add("--table", nargs="+", choices=TABLES, default=list(TABLES), help="default: all")
    add("--row", nargs="+", help="only these; --list shows their names")
    add("--seeds", nargs="+", type=int, help="only these")
    add("--list", action="store_true", help="show the runs and what came of them")
    add("--dry-run", action="store_true", help="show the commands that are left to run")
    add("--scratch", type=Path, help="folder for runs that are not the table's own")
    arguments = sys.argv[1:] if arguments is None else arguments
    # Taken out first: the options that take several values would swallow them.
    overrides = [one for one in arguments if "=" in one and not one.startswith("-")]
    args = parser.parse_args([one for one in arguments if one not in overrides])
    args.overrides = overrides
    return args


def selected(args: argparse.Namespace) -> list[Run]:
    """The runs that the command line asks for."""
    runs = [run for table in args.table for run in runs_of(table)]
    for what, wanted, known in (
        ("row", args.row, {run.row for run in runs}),
        ("seed", args.seeds, {run.seed for run in runs}),
    ):
        if unknown := set(wanted or ()) - known:
            raise ValueError(
                f"no {what} {unknown.pop()} in {', '.join(args.table)}: there are "
                f"{', '.join(map(str, sorted(known)))}"
            )
    runs = [run for run in runs if args.row is None or run.row in args.row]
    return [run for run in runs if args.seeds is None or run.seed in args.seeds]


def main(arguments: Sequence[str] | None = None) -> None:
    """List, show or run; bad input ends in one sentence and exit code 1."""
    args = parse(arguments)
    try:
        runs, place = selected(args), Place(args.scratch, args.overrides)
        if args.list:
            print(listing(runs, place))
        elif args.dry_run:
            for run in (run for run in runs if not place.finished(run)):
                trains = TABLES[run.table].rows[run.row].trains
                print(shlex.join(place.command(run)) if trains else f"# {run.name}: counts labels")
        else:
            work_off(runs, place)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {sentence_of(error)}")
    except KeyboardInterrupt:
        print(STOPPED, flush=True)


if __name__ == "__main__":
    main()
