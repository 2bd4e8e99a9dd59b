"""Work that runs beside the model: one call in a thread, while the next image is segmented."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Background:
    """Run calls in one thread, in their order; the caller is at most one call ahead.

    At the end of the block all calls have ended. An error of a call is raised by the next
    :meth:`submit`, or at the end of the block.

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
        """Wait for the last call, and start ``function(*arguments)``."""
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
