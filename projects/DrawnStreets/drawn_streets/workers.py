"""Worker processes that draw streets."""

import multiprocessing
from multiprocessing.pool import Pool

import cv2


def street_pool(workers: int) -> Pool:
    """Return a pool of processes, each of which uses one thread and has all caches filled.

    The workers are forked from a clean server that has imported :mod:`drawn_streets.preload`.
    A fork of the caller could inherit locks that the caller's threads hold.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.preload", f"{__package__}.dataset"])
    return context.Pool(workers, cv2.setNumThreads, (0,))
