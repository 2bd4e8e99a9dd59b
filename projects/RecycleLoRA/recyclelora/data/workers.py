"""Read the items of a dataset in batches, in worker processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from recyclelora.common.validation import check_integer


class _ErrorsAsItems(Dataset):
    """Return errors as items, because a DataLoader puts a worker's traceback into the message."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> object:
        try:
            return self.dataset[index]
        except (OSError, ValueError) as error:
            return error


class BatchLoader:
    """Iterate over lists of items: a DataLoader whose errors and signals suit a command line.

    Parameters
    ----------
    dataset : Dataset
        A map-style dataset.
    batches : iterable of list of int
        The indices of each batch. It is iterated over anew in every pass.
    num_workers : int
        Number of worker processes; 0 reads in this process.

    Raises
    ------
    ValueError
        ``num_workers`` is no number of processes.
    OSError, ValueError
        In a pass: the error of an item, when its batch is reached.
    ChildProcessError
        In a pass: a worker process died.
    """

    def __init__(self, dataset: Dataset, batches: Iterable[list[int]], *, num_workers: int) -> None:
        check_integer("num_workers", num_workers, most=512)
        self.dataset = dataset
        self._loader = DataLoader(
            _ErrorsAsItems(dataset),
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=list,
            worker_init_fn=_init_worker,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[list]:
        main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD)
        batches = iter(self._loader)
        if main and self._loader.num_workers > 0:
            # The DataLoader's handler would raise at any place of the program. Without it the
            # DataLoader notices a dead worker while it waits for a batch.
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            # OSError and EOFError: the worker died while it sent a batch.
            except (RuntimeError, OSError, EOFError) as error:
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                raise ChildProcessError(
                    f"a process that reads the data has died ({error}), perhaps of too little "
                    "memory: use fewer of them (num_workers, --workers) or smaller crops; a "
                    "training goes on with --resume from its last checkpoint"
                ) from error
            for item in batch:
                if isinstance(item, Exception):
                    raise item
            yield batch


def _init_worker(_: int) -> None:
    # No OpenCV threads beside the workers. 0, not 1: in a fork of a process whose threads have run,
    # 1 would wait for threads that do not exist here.
    cv2.setNumThreads(0)
    # Signals to a process group are meant for the main process, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_sigterm_of_parent, daemon=True).start()


def _exit_on_sigterm_of_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != multiprocessing.parent_process().pid:
        pass
    os._exit(0)
