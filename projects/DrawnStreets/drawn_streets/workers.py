"""Worker processes that draw streets."""

import multiprocessing
import signal
from multiprocessing import forkserver
from multiprocessing.pool import Pool

import cv2


def street_pool(workers: int) -> Pool:
    """Return a pool of processes, each of which uses one thread and has all caches filled.

    The workers are forked from a clean server that has imported :mod:`drawn_streets.preload`.
    A fork of the caller could inherit locks that the caller's threads hold.
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
    return context.Pool(workers, cv2.setNumThreads, (0,))
