"""One run of a table, from where it stopped to its result, in a folder that one process writes.

Several processes, also on several machines, may work on one table in one shared folder. A process
locks the folder of a run, and the lock lasts until the process and its training have both ended.
Between machines this needs a file system that shares such locks (``flock``): NFS 4 does, NFS 3 with
its lock daemon, Lustre mounted with ``flock``. Where it does not, give every machine its own rows.
"""

import contextlib
import functools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from drawn_streets import streets_in, write_streets
from recyclelora.common.atomic_write import write_json
from recyclelora.common.devices import pick_device
from recyclelora.common.folder_lock import folder_lock
from recyclelora.config.objects import instantiate
from recyclelora.data.datasets import get_dataset
from recyclelora.evaluation import constant_prediction, evaluate_domains, majority_class

from .environment import environment
from .formatting import read_json
from .tables import Run, Table
from .workspace import Workspace, datasets_of

STREETS_SEED = 0
STOPPED = "stopped; the same command goes on from here"


@functools.cache
def check_complete(dataset: str) -> None:
    """Raise unless all pairs of the released dataset exist."""
    if warning := get_dataset(dataset).size_warning():
        raise ValueError(f"{warning}; for a trial on part of it, give --scratch FOLDER")


def draw_missing_streets(table: Table, folder: Path) -> dict:
    """Draw the streets of a table that are not in ``folder``; return their settings by domain."""
    settings = {}
    with folder_lock(folder, wait=True):
        for domain, count in table.streets.items():
            found = streets_in(folder / domain) or {}
            if not found.get("complete") or found.get("count", 0) < count:
                write_streets(folder / domain, domain=domain, count=count, seed=STREETS_SEED)
                found = streets_in(folder / domain)
            settings[domain] = {k: v for k, v in found.items() if not isinstance(v, dict)}
    return settings


def run_command(command: Sequence[str], folder: Path, lock: int) -> int:
    """Run a command in ``folder``; SIGTERM and Ctrl-C end it and then this program.

    The command inherits the file descriptor ``lock``. Its exit status is returned.
    """
    child, stopped = None, []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        if child is not None:
            child.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # In a session of its own: a Ctrl-C of the terminal must reach it only through `stop`.
        command = [sys.executable, *command[1:]]
        child = subprocess.Popen(command, cwd=folder, pass_fds=[lock], start_new_session=True)
        if stopped:
            child.terminate()
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        print(STOPPED, flush=True)
        # After SIGTERM as the training does, which has saved; after Ctrl-C as every tool.
        sys.exit(130 if signal.SIGINT in stopped else 0)
    return status


@contextlib.contextmanager
def record_seconds(folder: Path) -> Iterator[None]:
    """Append the seconds of this attempt to ``seconds.txt``, and those of a killed one before.

    A killed attempt counts until it last wrote to its log.
    """
    attempts, began, log = (folder / name for name in ("seconds.txt", "began", "log.txt"))
    lasted = []
    if began.exists() and log.exists():
        lasted.append(max(log.stat().st_mtime - began.stat().st_mtime, 0.0))
    began.touch()
    start = time.monotonic()
    try:
        yield
    finally:
        lasted.append(time.monotonic() - start)
        with attempts.open("a", encoding="utf-8") as file:
            file.writelines(f"{seconds:.1f}\n" for seconds in lasted)
        began.unlink()


def train(run: Run, workspace: Workspace, lock: int) -> float:
    """Train and evaluate a run; return the seconds of all attempts together."""
    folder = workspace.folder(run)
    with record_seconds(folder):
        status = run_command(workspace.command(run), workspace.root, lock)
    last = folder / f"iter_{workspace.config_of(run).train.max_iter:07d}.pth"
    absent = [file.name for file in (last, folder / "domains.json") if not file.is_file()]
    if status or absent:
        raise ValueError(f"{run.table} {run.name} did not end well (status {status}): see above")
    return sum(map(float, (folder / "seconds.txt").read_text(encoding="utf-8").split()))


def evaluate_majority(cfg: DictConfig, folder: Path) -> float:
    """Evaluate the majority class of the source in this process; return the seconds it took."""
    start = time.monotonic()
    records = instantiate(cfg.dataloader.train).dataset.records
    evaluate_domains(
        constant_prediction(majority_class(records)),
        {name: instantiate(loader) for name, loader in cfg.dataloader.test.items() if loader},
        protocol=instantiate(cfg.evaluation.protocol),
        output_dir=folder,
    )
    return time.monotonic() - start


def finish_run(run: Run, workspace: Workspace) -> dict:
    """Do what is left of a run and write its JSON file, which is returned.

    Raises
    ------
    FolderLockedError
        If another process works on the run.
    ValueError, OSError
        If the run failed, or a dataset that has to be complete is not.
    """
    table, row = workspace.tables[run.table], workspace.row_of(run)
    cfg, folder = workspace.config_of(run), workspace.folder(run)
    if table.published and workspace.scratch is None:
        for dataset in datasets_of(cfg):
            check_complete(dataset)
    with folder_lock(folder, inheritable=True) as lock:
        if result := workspace.result_of(run):  # another process ended it before we had the lock
            return result
        streets = {}
        if table.streets:
            streets = draw_missing_streets(table, workspace.root / cfg.dataloader.streets)
        seconds = train(run, workspace, lock) if row.trains else evaluate_majority(cfg, folder)
        result = {
            "table": run.table,
            "row": run.row,
            "label": row.label,
            "seed": run.seed,
            "config": workspace.config_file(run),
            "overrides": workspace.overrides_of(run),
            "iterations": cfg.train.max_iter if row.trains else 0,
            "batch": cfg.dataloader.train.total_batch_size,
            "num_gpus": workspace.num_gpus,
            "seconds": round(seconds, 1),
            "streets": streets,
            "environment": environment(pick_device(cfg.train.device), workspace.root),
            "result": read_json(folder / "domains.json"),
            "one_class": read_json(folder / "one_class.json"),
        }
        write_json(run.result_file(workspace.results), result)
    return result
