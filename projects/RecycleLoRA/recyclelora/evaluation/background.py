"""A background thread that runs one call while the model segments the next image."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Background:
    """Run calls in one background thread, in the order in which they are submitted.

    At most one call runs while the caller continues. All calls have finished when the ``with``
    block ends. The next :meth:`submit`, or the end of the block, raises the error of a failed call.

    Examples
    --------
    >>> squares = []
    >>> with Background() as background:
    ...     for number in range(3):
    ...         background.submit(lambda n: squares.append(n * n), number)
    >>> squares
    [0, 1, 4]
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "evaluation")
        self._last: Future | None = None

    def submit(self, function: Callable, *arguments: object) -> None:
        """Wait for the previous call, then start ``function(*arguments)`` in the thread.

        Parameters
        ----------
        function : Callable
            The function to call.
        *arguments : object
            Its positional arguments.

        Raises
        ------
        Exception
            The error of the previous call, if it failed.
        """
        self._finish()
        self._last = self._thread.submit(function, *arguments)

    def _finish(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._thread.shutdown()
