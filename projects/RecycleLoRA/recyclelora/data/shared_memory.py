"""Shared memory (/dev/shm): the transfer of batches from worker processes, and its size.

A worker copies all tensors of a batch into one shared buffer. If the buffer cannot be allocated,
the worker waits until there is space, so no batch is lost.
"""

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import torch

from recyclelora.common.cores import available_cores

SHARED_MEMORY = Path("/dev/shm")
#: The number of batches that a worker prepares in advance.
PREFETCH = 2
#: The upper limit of the default number of workers.
MOST_WORKERS = 8
_ALIGNMENT = 64  # alignment of each tensor in the buffer, in bytes
_MIB = 2**20


def free_shared_memory() -> int | None:
    """Return the free bytes of /dev/shm; None if it does not exist or has no limit.

    Returns
    -------
    int or None
        The number of bytes.
    """
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize if status.f_blocks else None


@dataclass(frozen=True)
class SharedMemoryDemand:
    """The shared memory that the workers of one loader need.

    Parameters
    ----------
    loader : str
        The name of the loader in error messages.
    batch_bytes : int
        The size of the largest batch; 0 if it is unknown or the batches have no tensors.
    num_workers : int
        The number of worker processes of one process of the run.
    processes : int
        The number of processes of the run on this machine. Each has such a loader.

    Examples
    --------
    >>> SharedMemoryDemand("training", batch_bytes=2**20, num_workers=2).bytes(2) / 2**20
    5.0
    """

    loader: str
    batch_bytes: int
    num_workers: int
    processes: int = 1

    def bytes(self, num_workers: int) -> int:
        """Return the bytes for ``num_workers``: their prefetched batches and the batch in use.

        Parameters
        ----------
        num_workers : int
            The number of worker processes.

        Returns
        -------
        int
            The number of bytes.
        """
        if num_workers == 0:
            return 0
        return self.processes * (num_workers * PREFETCH + 1) * self.batch_bytes

    def check(self, beside: "SharedMemoryDemand | None" = None) -> None:
        """Raise an error if /dev/shm is too small; call this before the workers start.

        Parameters
        ----------
        beside : SharedMemoryDemand, optional
            The demand of a loader that is in use at the same time, such as the training loader
            during an evaluation.

        Raises
        ------
        ValueError
            If the space is too small. The message contains the largest ``num_workers`` that fits.
        """
        free = free_shared_memory()
        others = beside.bytes(beside.num_workers) if beside is not None else 0
        if free is None or others + self.bytes(self.num_workers) <= free:
            return
        if self.bytes(self.num_workers) == 0:
            return  # the check of ``beside`` reports the error
        fits = range(self.num_workers)
        most = max((n for n in fits if others + self.bytes(n) <= free), default=0)
        several = f" in each of {self.processes} processes" if self.processes > 1 else ""
        at_once = f" in addition to {_mib(others)} of {beside.loader}" if others else ""
        raise ValueError(
            f"{self.loader}: {self.num_workers} worker processes{several} need "
            f"{_mib(self.bytes(self.num_workers))} of shared memory for batches of up to "
            f"{_mib(self.batch_bytes)}{at_once}, but /dev/shm has {_mib(free)} free; start the "
            f"container with --shm-size={self._size_to_ask_for(others)}m (or mount a larger "
            f"/dev/shm), or set num_workers={most}, the largest number that fits"
        )

    def _size_to_ask_for(self, others: int) -> int:
        """Return a size of /dev/shm in MiB: the used and the needed space, plus a quarter."""
        status = os.statvfs(SHARED_MEMORY)
        used = (status.f_blocks - status.f_bavail) * status.f_frsize
        need = used + (others + self.bytes(self.num_workers)) * 5 // 4
        return -(-need // (64 * _MIB)) * 64


def default_workers(batch_bytes: int, processes: int = 1, batches: int | None = None) -> int:
    """Return the default number of worker processes of a loader.

    The number is one per core that is available to this process, but at least 1 and at most 8.

    Parameters
    ----------
    batch_bytes : int
        The size of the largest batch. The number is reduced if the workers would need more than
        half of the free /dev/shm, which a training and its evaluation share.
    processes : int
        The number of processes of the run on this machine. They share the cores.
    batches : int, optional
        The number of batches, which the number of workers does not exceed.

    Returns
    -------
    int
        The number of workers.
    """
    most = max(1, min(MOST_WORKERS, available_cores() // processes, batches or MOST_WORKERS))
    free = free_shared_memory()
    if free is None:
        return most
    demand = SharedMemoryDemand("", batch_bytes, most, processes)
    return max((n for n in range(1, most + 1) if 2 * demand.bytes(n) <= free), default=1)


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"


class SharedBatch:
    """The items of a batch with their tensors in one shared buffer; a few kilobytes when pickled.

    All tensors share one buffer, because each buffer needs an open file in both processes. The
    items are pickled here and not in the thread of the queue, because that thread would lose the
    batch if pickling failed.

    Parameters
    ----------
    items : list
        The items. Tensors that are values of a dict are shared.

    Raises
    ------
    RuntimeError, OSError
        If the buffer cannot be allocated or passed on.
    """

    def __init__(self, items: list) -> None:
        tensors = [v for item in items if isinstance(item, dict) for v in item.values()]
        sizes = [_aligned(t.nbytes) for t in tensors if isinstance(t, torch.Tensor)]
        if sum(sizes):
            storage = torch.UntypedStorage._new_shared(sum(sizes))
            places = iter(torch.empty(0, dtype=torch.uint8).set_(storage).split(sizes))
            items = [_replace_tensors(item, lambda t: _copy(t, next(places))) for item in items]
        self._message = bytes(ForkingPickler.dumps(items))

    def items(self) -> list:
        """Return the items. This can be called once, while the worker is alive."""
        return pickle.loads(self._message)

    def pin_memory(self) -> list:
        """Return the items with their tensors in pinned memory, as the DataLoader requests."""
        return [_replace_tensors(item, torch.Tensor.pin_memory) for item in self.items()]


def _replace_tensors(item: object, function: Callable[[torch.Tensor], torch.Tensor]) -> object:
    if not isinstance(item, dict):
        return item
    return {k: function(v) if isinstance(v, torch.Tensor) else v for k, v in item.items()}


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _copy(tensor: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    return place[: tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)


def share_batch(items: list) -> SharedBatch:
    """Share the items of a worker as soon as /dev/shm has space for them.

    Parameters
    ----------
    items : list
        The items.

    Returns
    -------
    SharedBatch
        The batch.
    """
    return _when_there_is_space(lambda: SharedBatch(items))


def _failure(error: Exception) -> SharedBatch:
    """Return a batch that passes the error to the main process."""
    return SharedBatch([OSError(f"a worker process cannot hand over its batch ({error})")])


def _when_there_is_space(allocate: Callable[[], SharedBatch]) -> SharedBatch:
    """Wait without limit, because the main process checks the time and stops its workers."""
    while True:
        try:
            return allocate()
        except RuntimeError as error:
            # PyTorch reports no error number, but other errors have other messages.
            if "unable to allocate shared memory" not in str(error):
                return _failure(error)
        except OSError as error:
            return _failure(error)
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(0)
        time.sleep(0.05)
