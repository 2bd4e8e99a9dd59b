"""Access to parameters that FSDP or tensor parallelism distributes over processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all values of a tensor that may be a DTensor.

    For a DTensor this is a collective call.

    Parameters
    ----------
    tensor : Tensor
        A DTensor or a plain tensor.

    Returns
    -------
    Tensor
        A plain tensor; a plain ``tensor`` is returned unchanged.
    """
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


@torch.no_grad()
def copy_values(target: Tensor, source: Tensor) -> None:
    """Copy values between tensors that may be DTensors.

    Parameters
    ----------
    target : Tensor
        The tensor to change.
    source : Tensor
        The tensor to copy.
    """
    source = full_tensor(source)
    if is_dtensor(target):
        from torch.distributed.tensor import distribute_tensor

        source = distribute_tensor(source, target.device_mesh, target.placements)
    target.copy_(source)


def is_dtensor(tensor: Tensor) -> bool:
    """Return whether a tensor or parameter is a DTensor.

    Parameters
    ----------
    tensor : Tensor
        The tensor.

    Returns
    -------
    bool
        True if it is a DTensor.
    """
    return hasattr(tensor, "full_tensor")


def is_sharded(module: nn.Module) -> bool:
    """Return whether processes hold parts of the parameters of a module.

    Parameters
    ----------
    module : nn.Module
        The module.

    Returns
    -------
    bool
        True under FSDP, or if a parameter is a DTensor.
    """
    kinds = ("FullyShardedDataParallel", "FSDPModule")
    if any(_modules_of(module, kind) for kind in kinds):
        return True
    return any(map(is_dtensor, module.parameters()))


@contextmanager
def full_parameters(module: nn.Module, *, writeback: bool = False) -> Iterator[None]:
    """Context manager that gathers the full parameters of modules under FSDP 1.

    All processes must enter it. Under ``fully_shard``, parameters are DTensors instead, see
    :func:`full_tensor`.

    Parameters
    ----------
    module : nn.Module
        The module.
    writeback : bool
        Whether to keep changes made inside the context.

    Yields
    ------
    None
    """
    for child in _modules_of(module, "FSDPModule"):
        child.reshard()  # discards gathered copies of the parameters, whose changes would be lost
    if not _modules_of(module, "FullyShardedDataParallel"):
        yield
        return
    from torch.distributed.fsdp import FullyShardedDataParallel

    with FullyShardedDataParallel.summon_full_params(module, writeback=writeback):
        yield


def run_on_all(action: Callable[[], Result], *, sharded: bool) -> Result:
    """Call a function and, if it fails in one process of a sharded model, raise in all processes.

    Otherwise the other processes would wait for the failed one.

    Parameters
    ----------
    action : Callable[[], Result]
        The function, called without arguments.
    sharded : bool
        Whether the processes share one model.

    Returns
    -------
    object
        The result of ``action``.

    Raises
    ------
    Exception
        The first error that a process raised.
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


def _modules_of(module: nn.Module, kind: str) -> list[nn.Module]:
    """Return the modules whose class, or one of its base classes, has this name."""
    children = module.modules()
    return [child for child in children if any(k.__name__ == kind for k in type(child).__mro__)]
