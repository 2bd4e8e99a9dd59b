"""Progress of long decompositions on the CPU, and their end on Ctrl-C.

The optional module ``recyclelora._interruption`` connects the compiled operators with Python. It is
built for one version of Python. Where it is missing, decompositions run to their end, without
progress.
"""

import contextlib
from collections.abc import Callable, Iterator

from .library import library_path, load, load_problem

try:
    from recyclelora import _interruption
except ImportError:  # built without pybind11 or for another Python
    _interruption = None
else:
    if load_problem() or not load() or not _interruption.connect(str(library_path())):
        _interruption = None


def is_interruptible() -> bool:
    """Return whether decompositions report their progress and can end early.

    Returns
    -------
    bool
        Whether the optional module is present and connected with the compiled operators.
    """
    return _interruption is not None


class StopFlag:
    """A flag that ends the decompositions of several threads.

    A thread calls :meth:`use` once. If another thread calls :meth:`set`, the running decomposition
    of each such thread, and every later one, raises a RuntimeError within about 0.1 s.

    Examples
    --------
    >>> import threading
    >>> import torch
    >>> from recyclelora import rrqr
    >>> stop = StopFlag()
    >>> stop.set()
    >>> def decompose():
    ...     stop.use()
    ...     rrqr(torch.eye(2), 1, 1)  # too short to end early
    >>> thread = threading.Thread(target=decompose)
    >>> thread.start()
    >>> thread.join()
    """

    def __init__(self) -> None:
        self._flag = _interruption.Flag() if _interruption else None

    def set(self) -> None:
        """End the decompositions of the threads that use this flag."""
        if self._flag:
            self._flag.set()

    def use(self) -> None:
        """Let this flag end the decompositions of the current thread."""
        if self._flag:
            self._flag.use()


@contextlib.contextmanager
def rrqr_progress(report: Callable[[int, int], object]) -> Iterator[None]:
    """Call a function for each matrix that :func:`rrqr` decomposes on the CPU in this thread.

    Parameters
    ----------
    report : Callable
        ``report(finished, total)`` with the number of finished matrices of a batch, from 1, and the
        number of its matrices. It is called in the current thread. An error that it raises ends the
        decomposition. It is never called where the optional module is missing.

    Yields
    ------
    None

    Examples
    --------
    >>> import torch
    >>> from recyclelora import rrqr
    >>> with rrqr_progress(lambda finished, total: print(f"{finished} of {total}")):
    ...     _ = rrqr(torch.randn(2, 8, 6), 1, 1)  # doctest: +SKIP
    1 of 2
    2 of 2
    """
    if not _interruption:
        yield
        return
    before = _interruption.set_progress(report)
    try:
        yield
    finally:
        _interruption.set_progress(before)


def raise_kept_error() -> None:
    """Raise what a signal handler or a progress function raised in a decomposition, if anything."""
    if _interruption and (error := _interruption.take_error()) is not None:
        raise error from None
