"""Parameters that FSDP or tensor parallelism distributes over processes, as whole tensors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a DTensor, which all processes have to ask for; any other tensor as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


@torch.no_grad()
def copy_values(target: Tensor, source: Tensor) -> None:
    """Copy ``source`` to ``target``, either of which may be a DTensor."""
    source = full_tensor(source)
    if is_dtensor(target):
        from torch.distributed.tensor import distribute_tensor

        source = distribute_tensor(source, target.device_mesh, target.placements)
    target.copy_(source)


def is_dtensor(tensor: Tensor) -> bool:
    """Whether a tensor or parameter is a DTensor."""
    return hasattr(tensor, "full_tensor")


def is_sharded(module: nn.Module) -> bool:
    """Whether processes hold parts of the parameters of ``module``."""
    return _has_flat_parameters(module) or any(map(is_dtensor, module.parameters()))


@contextmanager
def full_parameters(module: nn.Module, *, writeback: bool = False) -> Iterator[None]:
    """Give the modules inside FullyShardedDataParallel their whole parameters inside the ``with``.

    All processes have to enter it. DTensors stay as they are: see :func:`full_tensor`.

    Parameters
    ----------
    module : nn.Module
    writeback : bool
        Whether to keep what the block changes.
    """
    if not _has_flat_parameters(module):
        yield
        return
    from torch.distributed.fsdp import FullyShardedDataParallel

    with FullyShardedDataParallel.summon_full_params(module, writeback=writeback):
        yield


def run_on_all(action: Callable[[], Result], *, sharded: bool) -> Result:
    """Return ``action()``; if it fails in one process of a sharded model, raise in all of them.

    Otherwise the other processes would wait for the one that failed.
    """
    if not sharded:
        return action()
    result = error = None
    try:
        result = action()
    except Exception as raised:
        error = raised
    errors = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(errors, error)
    for raised in errors:
        if raised is not None:
            raise raised
    return result


def _has_flat_parameters(module: nn.Module) -> bool:
    kinds = (kind for child in module.modules() for kind in type(child).__mro__)
    return any(kind.__name__ == "FullyShardedDataParallel" for kind in kinds)
