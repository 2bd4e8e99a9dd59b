"""Run one row of a table, from where it stopped to its result, under a lock of its folder.

Several processes, also on several machines, may work on one table in one shared folder. A process
locks the folder of a run. The lock lasts until the process and its training have both ended.
Between machines, this requires a file system with shared ``flock`` locks, such as NFS 4, NFS 3 with
its lock daemon, or Lustre mounted with ``flock``. On other file systems, assign different rows to
each machine.
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
STOPPED = "stopped; run the same command again to continue"


@functools.cache
def check_complete(dataset: str) -> None:
    """Raise an error if a released dataset is incomplete.

    Parameters
    ----------
    dataset : str
        The name of the dataset.

    Raises
    ------
    ValueError
        If pairs of image and label are missing.
    """
    if warning := get_dataset(dataset).size_warning():
        raise ValueError(f"{warning}; to try a part of the dataset, give --scratch FOLDER")


def draw_missing_streets(table: Table, folder: Path) -> dict:
    """Draw the streets of a table that do not exist yet.

    Parameters
    ----------
    table : Table
        The table.
    folder : Path
        The folder of the streets.

    Returns
    -------
    dict
        The settings of the streets by domain.
    """
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
    """Run a command; SIGTERM and Ctrl-C end it and then this program.

    Parameters
    ----------
    command : Sequence[str]
        The command, which begins with "python".
    folder : Path
        The working directory.
    lock : int
        A file descriptor that the command inherits.

    Returns
    -------
    int
        The exit status.
    """
    child, stopped = None, []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        if child is not None:
            child.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # A new session, so that a Ctrl-C of the terminal reaches the child only through `stop`.
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
        # Exit like the training, which has saved, after SIGTERM, and like all tools after Ctrl-C.
        sys.exit(130 if signal.SIGINT in stopped else 0)
    return status


@contextlib.contextmanager
def record_seconds(folder: Path) -> Iterator[None]:
    """Append the seconds of this attempt, and of a killed earlier one, to ``seconds.txt``.

    The time of a killed attempt ends with the last entry in its log.

    Parameters
    ----------
    folder : Path
        The output folder of the run.

    Yields
    ------
    None
        None
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
    """Train and evaluate a run.

    Parameters
    ----------
    run : Run
        The run.
    workspace : Workspace
        The folders of the runs.
    lock : int
        A file descriptor that the training inherits.

    Returns
    -------
    float
        The seconds of all attempts together.

    Raises
    ------
    ValueError
        If the training failed.
    """
    folder = workspace.folder(run)
    with record_seconds(folder):
        status = run_command(workspace.command(run), workspace.root, lock)
    if status or not all(file.is_file() for file in workspace.outputs(run)):
        raise ValueError(f"{run.table} {run.name} failed (status {status}): see the output above")
    return sum(map(float, (folder / "seconds.txt").read_text(encoding="utf-8").split()))


def evaluate_majority(cfg: DictConfig, folder: Path) -> float:
    """Evaluate the majority class of the source in this process.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    folder : Path
        The output folder of the run.

    Returns
    -------
    float
        The seconds of the evaluation.
    """
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
    """Complete a run and write its JSON file.

    Parameters
    ----------
    run : Run
        The run.
    workspace : Workspace
        The folders of the runs.

    Returns
    -------
    dict
        The content of the file.

    Raises
    ------
    FolderLockedError
        If another process works on the run.
    ValueError, OSError
        If the run failed, or if a dataset that must be complete is not.
    """
    table, row = workspace.tables[run.table], workspace.row_of(run)
    cfg, folder = workspace.config_of(run), workspace.folder(run)
    if table.published and workspace.scratch is None:
        for dataset in datasets_of(cfg):
            check_complete(dataset)
    with folder_lock(folder, inheritable=True) as lock:
        if result := workspace.result_of(run):  # another process finished it in the meantime
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
