"""Stopping a run: SIGTERM or Ctrl-C ends it between two steps, after saving its state."""

import os
import signal
import time
from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.utils import comm

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DUPLICATE = 1.0  # seconds in which a launcher forwards a signal that also arrived directly


class Stopped(Exception):
    """The run received a signal and has saved its state."""


class StopRequest:
    """Context manager that records the first SIGTERM or SIGINT; a second one kills the process.

    The handlers never raise, so no operation is interrupted. Code that can be interrupted calls
    :meth:`check`. Enter it in the main thread.

    Parameters
    ----------
    saves : bool
        Whether the run can save its state. While it cannot, Ctrl-C raises KeyboardInterrupt as in
        any program. The attribute of this name can be set at any time.

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
        """Return the seconds since the first signal; 0 if there was none."""
        return time.monotonic() - self._since if self.received else 0.0

    def check(self) -> None:
        """Raise :class:`Stopped` if this process received a signal."""
        if self.received:
            raise Stopped

    def check_all(self) -> None:
        """Raise :class:`Stopped` in all processes if any received a signal; all call this."""
        if any(comm.all_gather(self.received)):
            self.received = True
            raise Stopped

    def _handle(self, number: int, _: object) -> None:
        if number == signal.SIGINT and not self.saves:
            raise KeyboardInterrupt
        if not self.received:
            self.received, self._since = True, time.monotonic()
            name = signal.Signals(number).name
            # Not print(), which the handler may interrupt.
            os.write(2, f"\n{name}: stopping soon; once more to stop at once\n".encode())
        elif time.monotonic() - self._since > _DUPLICATE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class StopBetweenSteps(HookBase):
    """Save and stop all processes if any received a signal, before the first step and after each.

    Parameters
    ----------
    request : StopRequest
    save : Callable[[int], None]
        Called with the number of finished iterations before stopping.
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
