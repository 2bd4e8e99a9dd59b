"""Settings that all loaders of a run share: timeout, stop request, space in /dev/shm."""

from collections.abc import Mapping

from detectron2.utils import comm
from omegaconf import DictConfig

from recyclelora.data.loader import TestLoader
from recyclelora.data.workers import TIMEOUT, BatchLoader

from .stopping import StopRequest

# Seconds that a run of several processes waits for the next batch after a request to stop. If one
# process left an iteration early, the others would fail.
_PATIENCE = 10.0


def prepare_loaders(
    cfg: DictConfig,
    tests: Mapping[str, TestLoader],
    *,
    train: object = None,
    request: StopRequest | None = None,
) -> None:
    """Set how long loaders wait for a batch, and check the space in /dev/shm.

    The space must suffice for all loaders that run at the same time.

    Parameters
    ----------
    cfg : DictConfig
        The config. A loader fails if it gets no batch for ``dataloader.timeout`` seconds.
    tests : Mapping[str, TestLoader]
        The loaders of the target domains, of which only one is in use at a time.
    train : object, optional
        The training loader, whose workers keep their batches during an evaluation. It is left
        unchanged if it is not a BatchLoader.
    request : StopRequest, optional
        A request to stop interrupts the wait for a batch with :class:`WaitInterrupted`.

    Raises
    ------
    ValueError
        If /dev/shm is too small for the training and an evaluation.
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
