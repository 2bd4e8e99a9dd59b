"""One run of a table, whatever of it is left: in a folder that one process at a time writes.

Several processes, also on several machines, may work on one table in one shared folder: a run is
held by a lock on its file ``lock`` (``flock``) as long as the process or its training lives, and
the system lets go of it however they end. Between machines this needs a file system that shares
such locks: NFS 4 does, NFS 3 with its lock daemon, Lustre mounted with ``flock``. Where it does
not, give every machine its own rows.
"""

import contextlib
import fcntl
import functools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig, OmegaConf

from drawn_streets import streets_in, write_streets
from recyclelora.backbone.weights import weights_are_here
from recyclelora.common.devices import pick_device
from recyclelora.config.overrides import apply_overrides
from recyclelora.data.datasets import folder_of
from recyclelora.evaluation import constant_prediction, evaluate_domains, majority_class
from recyclelora.evaluation.domains import write_json

from .environment import environment
from .tables import ROOT, TABLES, Row, Run, Table

TRAIN = "tools/lazyconfig_train_net.py"
STREETS_SEED = 0
STOPPED = "stopped; the same command goes on from here"


class Busy(ValueError):
    """Another process does this run."""


class Place:
    """Where runs write, and what is common to all of them."""

    def __init__(self, scratch: Path | None, overrides: Sequence[str], num_gpus: int = 1):
        if overrides and scratch is None:
            raise ValueError(
                f"{overrides[0]} makes these other runs than the table's: give --scratch FOLDER "
                "for what they write"
            )
        self.scratch = scratch
        self.output = ROOT / "output" if scratch is None else scratch.absolute()
        self.results = ROOT / "results" if scratch is None else self.output / "results"
        self.overrides = tuple(overrides)
        self.num_gpus = num_gpus

    def folder(self, run: Run) -> Path:
        """The output folder of a run."""
        return self.output / run.table / run.name

    def overrides_of(self, run: Run) -> list[str]:
        """All that makes the table's config this run, but for its folder."""
        return [*row_of(run).overrides, f"train.seed={run.seed}", *self.overrides]

    def config_of(self, run: Run) -> DictConfig:
        """The run's config as the training tool sees it."""
        cfg = LazyConfig.load(str(ROOT / config_file(run)))
        return apply_overrides(cfg, self.overrides_of(run))

    def command(self, run: Run) -> list[str]:
        """What trains and evaluates it."""
        folder = self.folder(run)
        if folder.is_relative_to(ROOT):
            folder = folder.relative_to(ROOT)
        tool = ["python", TRAIN, "--config-file", config_file(run), "--resume"]
        if self.num_gpus != 1:
            tool += ["--num-gpus", str(self.num_gpus)]
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


def row_of(run: Run) -> Row:
    """Its method."""
    return TABLES[run.table].rows[run.row]


def config_file(run: Run) -> str:
    """Its config, below the repository's root."""
    return row_of(run).config or TABLES[run.table].config


@contextlib.contextmanager
def held(folder: Path, *, wait: bool = False) -> Iterator[int]:
    """Hold a folder, also through a child that is given the yielded file descriptor.

    Raises:
        Busy: another process holds it, unless we ``wait`` for that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise Busy(
                f"{folder} is being written by another process ({holder}): wait for it or stop it"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield lock.fileno()


def datasets_of(cfg: DictConfig) -> list[str]:
    """Names of the registered sets that a run reads."""
    source = cfg.dataloader.train.dataset
    sources = [source] if isinstance(source, str) else source
    targets = [loader.dataset for loader in cfg.dataloader.test.values() if loader]
    return [name for name in [*sources, *targets] if isinstance(name, str)]


def weights_of(node: object) -> Iterator[str]:
    """Names or files of the pretrained weights below a config's node."""
    if OmegaConf.is_list(node):
        node = dict(enumerate(node))
    if isinstance(node, Mapping | DictConfig):
        for key, value in node.items():
            if key == "weights" and isinstance(value, str):
                yield value
            yield from weights_of(value)


def missing(cfg: DictConfig) -> list[str]:
    """What a run needs and this machine lacks, by name."""
    names = [name for name in datasets_of(cfg) if not folder_of(name).is_available()]
    return names + [name for name in weights_of(cfg.model) if not weights_are_here(name)]


@functools.cache
def whole(dataset: str) -> None:
    """Raise unless all pairs of the release are there."""
    if shortfall := folder_of(dataset).shortfall():
        raise ValueError(f"{shortfall}; for a trial on part of it, give --scratch FOLDER")


def draw(table: Table, cfg: DictConfig) -> dict:
    """Draw what is not there of the table's streets; returns their settings by domain."""
    if not table.streets:
        return {}
    settings = {}
    with held(ROOT / cfg.dataloader.streets, wait=True):
        for domain, count in table.streets.items():
            root = ROOT / cfg.dataloader.streets / domain
            there = streets_in(root) or {}
            if not there.get("complete") or there.get("count", 0) < count:
                write_streets(root, domain=domain, count=count, seed=STREETS_SEED)
                there = streets_in(root)
            settings[domain] = {k: v for k, v in there.items() if not isinstance(v, dict)}
    return settings


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


@contextlib.contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Add the seconds of this attempt to ``seconds.txt``, and of one before that was killed.

    The killed one lasted until it wrote to its log for the last time.
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
        with attempts.open("a") as file:
            file.writelines(f"{seconds:.1f}\n" for seconds in lasted)
        began.unlink()


def train(run: Run, place: Place, lock: int) -> float:
    """Train and evaluate; returns the seconds of all attempts together."""
    folder = place.folder(run)
    with timed(folder):
        status = call(place.command(run), lock)
    last = folder / f"iter_{place.config_of(run).train.max_iter:07d}.pth"
    absent = [file.name for file in (last, folder / "domains.json") if not file.is_file()]
    if status or absent:
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
    """Do one run, whatever of it is left, and write its JSON, which is returned.

    Raises:
        Busy: another process does it.
        ValueError, OSError: it failed, or datasets are not whole that have to be.
    """
    table, row, cfg = TABLES[run.table], row_of(run), place.config_of(run)
    if table.published and place.scratch is None:
        for dataset in datasets_of(cfg):
            whole(dataset)
    folder = place.folder(run)
    with held(folder) as lock:
        if result := place.finished(run):  # by another process, before we held it
            return result
        streets = draw(table, cfg)
        seconds = train(run, place, lock) if row.trains else count_majority(run, place)
        result = {
            "table": run.table,
            "row": run.row,
            "label": row.label,
            "seed": run.seed,
            "config": config_file(run),
            "overrides": place.overrides_of(run),
            "iterations": cfg.train.max_iter if row.trains else 0,
            "batch": cfg.dataloader.train.total_batch_size,
            "num_gpus": place.num_gpus,
            "seconds": round(seconds, 1),
            "streets": streets,
            "environment": environment(pick_device(cfg.train.device)),
            "result": json.loads((folder / "domains.json").read_text()),
            "one_class": json.loads((folder / "one_class.json").read_text()),
        }
        write_json(run.result(place.results), result)
    return result
