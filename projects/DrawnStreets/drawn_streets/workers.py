"""Worker processes that draw streets."""

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver

import cv2


@contextmanager
def street_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Context manager of processes, each of which uses one thread and has all caches filled.

    The workers are forked from a clean server that has imported :mod:`drawn_streets.preload`.
    A fork of the caller could inherit locks that the caller's threads hold.

    Parameters
    ----------
    workers : int
        The number of processes.

    Yields
    ------
    ProcessPoolExecutor
        The processes. Work that has not started when the context ends is cancelled.

    Raises
    ------
    RuntimeError
        If a process ends early, for instance because the script that it imports draws streets too.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.preload", f"{__package__}.dataset"])
    # The terminal sends Ctrl-C to all processes, and only this one handles it: the server and its
    # workers inherit a mask that blocks it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    pool = ProcessPoolExecutor(workers, context, cv2.setNumThreads, (0,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that draws streets ended early: in a script, draw streets only below "
            '`if __name__ == "__main__":`, because every process imports the script; if memory is '
            "short, use fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
