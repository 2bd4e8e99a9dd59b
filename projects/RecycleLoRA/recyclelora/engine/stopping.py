"""Stopping of a run: after SIGTERM or Ctrl-C it saves its state and ends between two steps."""

import os
import signal
import time
from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.utils import comm

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DUPLICATE = 1.0  # seconds during which a launcher may forward a signal that also arrived directly


class Stopped(Exception):
    """The run received a signal and has saved its state."""


class StopRequest:
    """Context manager that records the first SIGTERM or SIGINT; a second one kills the process.

    The handlers never raise an error, so no operation is interrupted. Code that can be interrupted
    calls :meth:`check`. The ``with`` block must be entered in the main thread.

    Parameters
    ----------
    saves : bool
        Whether the run can save its state. While it cannot, Ctrl-C raises KeyboardInterrupt as
        usual. The attribute ``saves`` can be set at any time.

    Examples
    --------
    >>> with StopRequest() as request:
    ...     os.kill(os.getpid(), signal.SIGTERM)
    ...     request.received
    True
    """

    def __init__(self, *, saves: bool = True) -> None:
        self.saves = saves
        self.received = False
        self._since = 0.0

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def age(self) -> float:
        """Return the seconds since the first signal, or 0 if there was none."""
        return time.monotonic() - self._since if self.received else 0.0

    def check(self) -> None:
        """Raise :class:`Stopped` if this process has received a signal."""
        if self.received:
            raise Stopped

    def check_all(self) -> None:
        """Raise :class:`Stopped` in all processes if any of them has received a signal.

        All processes must call this method.
        """
        if any(comm.all_gather(self.received)):
            self.received = True
            raise Stopped

    def _handle(self, number: int, _: object) -> None:
        if number == signal.SIGINT and not self.saves:
            raise KeyboardInterrupt
        if not self.received:
            self.received, self._since = True, time.monotonic()
            name = signal.Signals(number).name
            # print() is not used because the handler may interrupt another print().
            os.write(2, f"\n{name}: stopping soon; send it again to stop immediately\n".encode())
        elif time.monotonic() - self._since > _DUPLICATE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class StopBetweenSteps(HookBase):
    """Save and stop all processes after a signal to any of them, between two steps.

    The hook checks for signals before the first step and after each step.

    Parameters
    ----------
    request : StopRequest
        The request to stop.
    save : Callable[[int], None]
        Function that saves the state. It gets the number of finished iterations.
    """

    def __init__(self, *, request: StopRequest, save: Callable[[int], None]):
        self.request = request
        self.save = save

    def before_train(self) -> None:
        self.request.check_all()
        self.request.saves = True

    def after_step(self) -> None:
        try:
            self.request.check_all()
        except Stopped:
            self.save(self.trainer.iter + 1)
            raise
