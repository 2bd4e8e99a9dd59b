"""A warning for trainings that spend too much time waiting for data."""

import logging

from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage

from recyclelora.common.cores import available_cores
from recyclelora.data import fast_decoding
from recyclelora.data.workers import BatchLoader

_SHARE = 0.1
_PERIOD = 50  # iterations
_FIRST = 20  # uncounted iterations, in which workers start and kernels are selected


class WarnOfWaiting(HookBase):
    """Warn once if more than 10 % of the time of 50 iterations is spent waiting for batches.

    The hook runs in the main process. It must be registered after Detectron2's ``IterationTimer``,
    because it reads that hook's ``time``. The waiting time is that of the slowest process.

    Parameters
    ----------
    loader : object
        The training loader.
    logger : logging.Logger
        The logger for the warning.
    """

    def __init__(self, *, loader: object, logger: logging.Logger):
        self.loader = loader
        self.logger = logger
        self._steps = -_FIRST
        self._waited = self._total = 0.0

    def before_train(self) -> None:
        """Log the number of workers."""
        if isinstance(self.loader, BatchLoader):
            workers, cores = self.loader.demand.num_workers, available_cores()
            self.logger.info("Data workers: %d (%d CPU cores are available)", workers, cores)

    def after_step(self) -> None:
        """Add the times of the step; warn at the end of a period if necessary."""
        storage = get_event_storage()
        latest = storage.latest()
        if latest.get("data_time", (0, None))[1] != storage.iter:
            return  # the batch was skipped
        self._steps += 1
        if self._steps <= 0:
            return
        self._waited += latest["data_time"][0]
        self._total += latest["time"][0]
        if self._steps == _PERIOD:
            share = self._waited / max(self._total, 1e-9)
            if share > _SHARE:
                self.logger.warning(
                    "Training waited for data %.0f %% of the last %d iterations: %s",
                    100 * share, _PERIOD, self._advice(),
                )  # fmt: skip
                self._steps = -(2**62)  # warn only once
            else:
                self._steps = 0
            self._waited = self._total = 0.0

    def _advice(self) -> str:
        """Return the end of a sentence that names settings the user can increase."""
        fast = [] if fast_decoding.is_installed() else ["install recyclelora[fast]"]
        if not isinstance(self.loader, BatchLoader):
            return " and ".join(["load it with more processes", *fast])
        workers, cores = self.loader.demand.num_workers, available_cores()
        if workers * self.loader.demand.processes < cores:
            more = f"raise dataloader.train.num_workers ({workers} now, {cores} cores available)"
        else:
            more = f"give the run more CPU cores ({cores} now), or store the images smaller"
        return " and ".join([more, *fast])
