"""Batched reading of a dataset in worker processes."""

import errno
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor, wait

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from recyclelora.common.files import is_out_of_files, open_files_message
from recyclelora.common.validation import check_integer

from .shared_memory import (
    PREFETCH,
    SharedBatch,
    SharedMemoryDemand,
    default_workers,
    free_shared_memory,
    share_batch,
)

#: Seconds without a batch after which a run ends (``dataloader.timeout``).
TIMEOUT = 600
_LOOK = 1  # seconds between two checks while waiting for a batch
_FULL = 20.0  # seconds without a batch and with a full /dev/shm, after which a run ends
_LITTLE = 2**20  # free bytes below which /dev/shm counts as full


class WaitInterrupted(Exception):
    """A pass over a loader was stopped while it waited for a batch."""


class _ErrorsAsItems(Dataset):
    """Dataset that returns errors as items; a DataLoader would add a worker's traceback."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> object:
        try:
            return self.dataset[index]
        except (OSError, ValueError) as error:
            return error


class BatchLoader:
    """Iterable of lists of items: a DataLoader with clear errors and support for signals.

    Parameters
    ----------
    dataset : Dataset
        A map-style dataset.
    batches : iterable of list of int
        The indices of each batch. Every pass iterates over it again.
    num_workers : int or None
        The number of worker processes. 0 reads in this process, and None selects the number by
        :func:`~recyclelora.data.shared_memory.default_workers`.
    name : str
        The name of the loader in error messages.
    batch_bytes : int
        The size of the tensors in the largest batch, or 0 if it is unknown.
    processes : int
        The number of processes of the run on this machine. Each has such a loader.

    Attributes
    ----------
    demand : SharedMemoryDemand
        The shared memory that the workers need.
    timeout : float
        The number of seconds without a batch after which a pass ends.
    should_stop : callable, optional
        Function that is called every second during the wait for a batch. If it returns True, the
        pass ends.

    Raises
    ------
    ValueError
        If ``num_workers`` is not a valid number of processes, or /dev/shm is too small for them.
    OSError, ValueError
        During a pass, if an item raises an error (when its batch is reached), if no worker can be
        started, if the limit of open files is reached, or if /dev/shm was full for 20 seconds.
    TimeoutError
        During a pass, if there was no batch for ``timeout`` seconds.
    WaitInterrupted
        During a pass, if ``should_stop`` returned True.
    ChildProcessError
        During a pass, if a worker process died.
    """

    def __init__(
        self,
        dataset: Dataset,
        batches: Iterable[list[int]],
        *,
        num_workers: int | None,
        name: str = "the loader",
        batch_bytes: int = 0,
        processes: int = 1,
    ) -> None:
        if num_workers is None:
            count = len(batches) if isinstance(batches, Sized) else None
            num_workers = default_workers(batch_bytes, processes, count)
        check_integer("num_workers", num_workers, most=512)
        self.dataset = dataset
        self.timeout: float = TIMEOUT
        self.should_stop: Callable[[], bool] | None = None
        self.demand = SharedMemoryDemand(name, batch_bytes, num_workers, processes)
        self.demand.check()
        self._loader = DataLoader(
            _ErrorsAsItems(dataset),
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=share_batch if num_workers else list,
            worker_init_fn=_init_worker,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=PREFETCH if num_workers else None,
        )

    def __iter__(self) -> Iterator[list]:
        batches = self._read_here() if self._loader.num_workers == 0 else self._read_by_workers()
        for batch in batches:
            for item in batch:
                if isinstance(item, Exception):
                    raise _item_error(item)
            yield batch
            batch = item = None  # free the shared memory before waiting for the next batch

    def _read_here(self) -> Iterator[list]:
        yield from self._loader

    def _read_by_workers(self) -> Iterator[list]:
        others = set(multiprocessing.active_children())
        batches = self._start_workers()
        workers = set(multiprocessing.active_children()) - others
        # Two operations can block without limit: the queue, and asking a worker for its buffer.
        fetcher = ThreadPoolExecutor(1, "batches")
        try:
            while (batch := self._await_batch(fetcher.submit(_fetch, batches))) is not None:
                yield batch
                batch = None
        except GeneratorExit:  # the consumer needs no more batches
            raise
        except BaseException:
            for worker in workers:
                worker.kill()  # the DataLoader would wait several seconds for each worker
            for worker in workers:
                worker.join(1)
            raise
        finally:
            fetcher.shutdown(wait=False)

    def _start_workers(self) -> Iterator:
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD)
        count = self._loader.num_workers
        try:
            batches = iter(self._loader)
        except OSError as error:
            if is_out_of_files(error):
                raise OSError(open_files_message()) from error
            if error.errno in (errno.EAGAIN, errno.ENOMEM):
                raise OSError(
                    f"{self.demand.loader}: cannot start {count} worker processes "
                    f"({error.strerror}): reduce num_workers, or raise the limit on processes"
                ) from error
            # Locks and queues between processes are also files in /dev/shm.
            raise OSError(
                f"{self.demand.loader}: {count} worker processes need /dev/shm, which cannot be "
                f"used ({error.strerror}): make room there (docker: --shm-size), or set "
                "num_workers=0"
            ) from error
        if main:
            # The DataLoader's handler could raise an error at any point in the program. Without the
            # handler, the DataLoader still detects a dead worker while it waits for a batch.
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        return batches

    def _await_batch(self, fetched: Future) -> list | None:
        last, waited, full = time.monotonic(), 0.0, 0.0
        while not wait([fetched], _LOOK).done:
            if self.should_stop is not None and self.should_stop():
                raise WaitInterrupted("stopped while waiting for a batch")
            now = time.monotonic()
            # The time during which the process is suspended does not count.
            passed, last = min(now - last, 10 * _LOOK), now
            waited += passed
            full = full + passed if self._is_memory_full() else 0.0
            if full >= _FULL:
                raise OSError(
                    f"{self.demand.loader}: /dev/shm was full for {_FULL:g} s while the loader "
                    "waited for a batch: start the container with a larger --shm-size, remove "
                    "the files of other programs there, or set num_workers below "
                    f"{self.demand.num_workers}"
                )
            if waited >= self.timeout:
                raise TimeoutError(
                    f"{self.demand.loader}: no batch within {self.timeout:g} s: check the disk or "
                    "the file server, or raise dataloader.timeout"
                )
        return fetched.result()

    def _is_memory_full(self) -> bool:
        free = free_shared_memory()
        return free is not None and free < max(self.demand.batch_bytes, _LITTLE)


def _fetch(batches: Iterator) -> list | None:
    """Return the next batch, or None at the end."""
    try:
        batch = next(batches, None)
        return batch.items() if isinstance(batch, SharedBatch) else batch
    # OSError and EOFError mean that the worker died while it sent a batch.
    except (RuntimeError, OSError, EOFError) as error:
        raise _worker_error(error) from error


def _item_error(error: Exception) -> Exception:
    """Return the error to raise for an item that is an error."""
    return OSError(open_files_message()) if is_out_of_files(error) else error


def _worker_error(error: Exception) -> Exception:
    """Return the error to raise after an error in the communication with the workers."""
    if is_out_of_files(error):
        return OSError(open_files_message())
    if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
        return error
    return ChildProcessError(
        f"a worker process that reads the data has died ({error}), perhaps because memory ran "
        "out: use fewer workers (num_workers, --workers) or smaller crops; --resume continues a "
        "training from its last checkpoint"
    )


def _init_worker(_: int) -> None:
    # OpenCV must not start threads in the workers. The number is 0 because 1 would wait for threads
    # that do not exist in a fork of a process whose threads have run.
    cv2.setNumThreads(0)
    # Signals to a process group are meant for the main process, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_sigterm_of_parent, daemon=True).start()


def _exit_on_sigterm_of_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != multiprocessing.parent_process().pid:
        pass
    os._exit(0)
