"""The folder that a run writes to: its log, its config, and no second training into it."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from detectron2.config import LazyConfig
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

LOGGER = "recyclelora.run"
LOCK = "training.lock"


def setup(cfg: DictConfig) -> logging.Logger:
    """Make the output folder, start its log and seed the libraries' generators.

    Raises:
        ValueError: nothing can be written there.
    """
    output = Path(cfg.train.output_dir)
    with _writable(output):
        output.mkdir(parents=True, exist_ok=True)
        for name in ("recyclelora", "detectron2", "fvcore"):
            logger = setup_logger(str(output / "log.txt"), comm.get_rank(), name=name)
            logger.setLevel(logging.INFO)
        if comm.is_main_process():
            LazyConfig.save(cfg, str(output / "config.yaml"))
    seed_all_rng(cfg.train.seed)
    return logging.getLogger(LOGGER)


@contextlib.contextmanager
def only_training(folder: str | Path) -> Iterator[None]:
    """Hold ``folder`` against other trainings, on this machine and on those that share it.

    The main process has a lock on ``training.lock`` there, which ends with the process however it
    ends. All processes of the run have to come here; a folder that is taken is refused in all.

    Raises:
        ValueError: another training is writing there, or nothing can be written.
    """
    folder, problem = Path(folder), None
    with contextlib.ExitStack() as stack:
        if comm.is_main_process():
            try:
                stack.enter_context(_locked(folder))
            except ValueError as error:
                problem = str(error)
        problem = next(filter(None, comm.all_gather(problem)), None)
        if problem is not None:
            raise ValueError(problem)
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    with file:
        try:
            # Of this process alone: data workers that outlive a killed one must not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise ValueError(
                    f"another training writes to {folder} ({file.read(200).strip() or 'unknown'}): "
                    "wait for it, stop it, or choose another train.output_dir"
                ) from None
            # A file system without locks: there nobody watches.
        with contextlib.suppress(OSError):  # for whoever asks; a full disk is met elsewhere
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"train.output_dir={folder} must be a folder to write to, got: {error.strerror}; "
            "choose another one"
        ) from error
