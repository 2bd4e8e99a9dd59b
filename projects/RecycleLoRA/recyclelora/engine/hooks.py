"""Hooks that run between training steps."""

from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils import comm


class PeriodicAction(HookBase):
    """Call ``action(finished_iterations)`` every ``period`` iterations.

    Detectron2's ``EvalHook`` and ``PeriodicCheckpointer`` are not used because they make their last
    call after the training loop, where a request to stop no longer has an effect.

    Parameters
    ----------
    action : Callable[[int], None]
        The function to call. It is called on every rank.
    period : int
        The number of iterations between two calls; 0 disables them.
    last : bool
        Whether to call it after the last iteration as well.
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


class WriteMetrics(PeriodicWriter):
    """Variant of Detectron2's ``PeriodicWriter`` that writes nothing when a run is stopped.

    The additional line would make a resumed run differ from one that was never stopped.
    """

    def after_train(self) -> None:
        for writer in self._writers:
            writer.close()
