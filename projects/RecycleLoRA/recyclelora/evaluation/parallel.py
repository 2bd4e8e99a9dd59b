"""Segmentation of several images at once on a CPU."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from .sliding_window import Predict

_Found = TypeVar("_Found")
_MOST_ELEMENTS = 4 * 2048 * 1024  # the colours and the label of the largest image not alone


def concurrent_calls(predict: Predict) -> int:
    """Return the number of calls of a function from images to logits that may run at once.

    Parameters
    ----------
    predict : Callable
        The function. If it has the attribute ``concurrent_calls``, that many threads may call it at
        once. Otherwise one thread calls it.

    Returns
    -------
    int
        The number.
    """
    return getattr(predict, "concurrent_calls", 1)


def in_order(
    function: Callable[[Mapping], _Found], samples: Iterable[Mapping], calls: int
) -> Iterator[tuple[Mapping, _Found]]:
    """Yield every sample and ``function(sample)`` in the order of the samples.

    Two threads that compute one image each take less time for two images than two threads that
    share the operations of each image, because many of these are short and wait for each other.
    Masks of large images need gigabytes, so an image of more than 2048 x 1024 pixels is computed
    alone.

    Parameters
    ----------
    function : Callable
        The function.
    samples : iterable of Mapping
        The samples. With several calls, one sample per call and one more are in memory.
    calls : int
        The number of samples that are computed at once, each by an equal share of PyTorch's
        threads. With 1, the calling thread computes them, with all threads.

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
    >>> [found for _, found in in_order(lambda sample: sample["number"] ** 2, samples, calls=2)]
    [0, 1, 4, 9]
    """
    if calls == 1:
        for sample in samples:
            yield sample, function(sample)
        return
    threads = torch.get_num_threads()
    running = deque()
    pool = ThreadPoolExecutor(
        calls, "segmentation", torch.set_num_threads, (max(threads // calls, 1),)
    )
    try:
        for sample in samples:
            own = {key: _copied(value) for key, value in sample.items()}
            sample = None
            alone = _elements(own) > _MOST_ELEMENTS
            if not alone:
                running.append((own, pool.submit(function, own)))
            while running and (alone or len(running) > calls):
                first, future = running.popleft()
                yield first, future.result()
            if alone:
                yield own, function(own)
        for first, future in running:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a thread that starts later takes the last number set


def _elements(sample: Mapping) -> int:
    """Return the number of elements of all tensors of a sample."""
    return sum(value.numel() for value in sample.values() if isinstance(value, Tensor))


def _copied(value: Any) -> Any:
    """Copy a tensor out of the shared memory of the loader, which needs the space."""
    return value.clone() if isinstance(value, Tensor) else value
