"""Segmentation of several images at once on a CPU, each by one thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from .sliding_window import Predict

_Found = TypeVar("_Found")


def concurrent_calls(predict: Predict) -> int:
    """Return the number of calls of a function from images to logits that may run at once.

    Parameters
    ----------
    predict : Callable
        The function. If it has the attribute ``concurrent_calls``, several threads may call it at
        once, and that many use all cores. Otherwise one thread calls it.

    Returns
    -------
    int
        The number.
    """
    return getattr(predict, "concurrent_calls", 1)


def in_order(
    function: Callable[[Mapping], _Found], samples: Iterable[Mapping], threads: int
) -> Iterator[tuple[Mapping, _Found]]:
    """Yield every sample and ``function(sample)`` in the order of the samples.

    Two threads that compute one image each take less time for two images than two threads that
    share the operations of each image, because many of these are short and wait for each other.

    Parameters
    ----------
    function : Callable
        The function.
    samples : iterable of Mapping
        The samples. With several threads, one sample per thread and one more are in memory.
    threads : int
        The number of samples that are computed at once, each by one thread of PyTorch. With 1, the
        calling thread computes them, with all of its threads.

    Yields
    ------
    tuple of Mapping and object
        A sample and its result.

    Raises
    ------
    Exception
        The error of ``function``, when its sample is reached.

    Examples
    --------
    >>> samples = [{"number": number} for number in range(4)]
    >>> [found for _, found in in_order(lambda sample: sample["number"] ** 2, samples, threads=2)]
    [0, 1, 4, 9]
    """
    if threads == 1:
        for sample in samples:
            yield sample, function(sample)
        return
    before = torch.get_num_threads()
    running = deque()
    pool = ThreadPoolExecutor(threads, "segmentation", torch.set_num_threads, (1,))
    try:
        for sample in samples:
            own = {key: _copied(value) for key, value in sample.items()}
            running.append((own, pool.submit(function, own)))
            sample = None
            if len(running) > threads:
                first, future = running.popleft()
                yield first, future.result()
        for first, future in running:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # a thread that starts later takes the last number set


def _copied(value: Any) -> Any:
    """Copy a tensor out of the shared memory of the loader, which needs the space."""
    return value.clone() if isinstance(value, Tensor) else value
