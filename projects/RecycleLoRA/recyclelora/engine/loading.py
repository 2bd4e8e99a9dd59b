"""Settings that all loaders of a run share: the timeout, the stop request, space in /dev/shm."""

from collections.abc import Mapping

from detectron2.utils import comm
from omegaconf import DictConfig

from recyclelora.data.loader import TestLoader
from recyclelora.data.workers import TIMEOUT, BatchLoader

from .stopping import StopRequest

# Seconds that a run of several processes has for the batch after a request to stop: one process
# that leaves an iteration makes the others fail.
_PATIENCE = 10.0


def prepare_loaders(
    cfg: DictConfig,
    tests: Mapping[str, TestLoader],
    *,
    train: object = None,
    request: StopRequest | None = None,
) -> None:
    """Set how long loaders wait, and check that /dev/shm has space for all that run at once.

    Parameters
    ----------
    cfg : DictConfig
        ``dataloader.timeout`` is the number of seconds after which a loader without a batch fails.
    tests : Mapping[str, TestLoader]
        The loaders of the target domains; one of them is in use at a time.
    train : object, optional
        The loader of the training, whose workers keep their batches during an evaluation. One that
        is no BatchLoader is left alone.
    request : StopRequest, optional
        A request ends the waiting for a batch by :class:`WaitInterrupted`.

    Raises
    ------
    ValueError
        /dev/shm is too small for the training and an evaluation.
    """
    loaders = [loader.batches for loader in tests.values()]
    if isinstance(train, BatchLoader):
        for loader in loaders:
            loader.demand.check(beside=train.demand)
        loaders.append(train)
    patience = _PATIENCE if comm.get_world_size() > 1 else 0.0
    for loader in loaders:
        loader.timeout = cfg.dataloader.get("timeout", TIMEOUT)
        if request is not None:
            loader.should_stop = lambda: request.received and request.age() >= patience
