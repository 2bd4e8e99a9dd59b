"""What happens between training steps: timing, and whatever is due every so often."""

import time
from collections.abc import Callable, Sequence

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter


class Every(HookBase):
    """Calls ``action(finished_iterations)`` every ``period`` iterations.

    The time it takes is kept out of the time left, which is that of the steps.

    Args:
        action: what to do; called on every rank.
        period: iterations between two calls; 0 never calls.
        last: also call it after the last iteration.
    """

    def __init__(self, *, action: Callable[[int], None], period: int, last: bool = False):
        self.action = action
        self.period = period
        self.last = last

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        due = self.period > 0 and done % self.period == 0
        if due or (self.last and done == self.trainer.max_iter):
            self.action(done)
            comm.synchronize()


class StepTimer(HookBase):
    """Puts the seconds of each step under ``time`` (hooks and their evaluations not counted)."""

    def before_step(self) -> None:
        self.start = time.perf_counter()

    def after_step(self) -> None:
        self.trainer.storage.put_scalar("time", time.perf_counter() - self.start)


class WriteScalars(HookBase):
    """Has the writers write every ``period`` iterations and after the last.

    Unlike Detectron2's ``PeriodicWriter`` not also where a run was stopped, so that a resumed run
    has the lines of one that never was.
    """

    def __init__(self, *, writers: Sequence[EventWriter], period: int):
        self.writers = writers
        self.period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            for writer in self.writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self.writers:
            writer.close()
