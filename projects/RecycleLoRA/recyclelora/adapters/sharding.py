"""Access to parameters that FSDP or tensor parallelism distributes over processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor of a DTensor (a collective call), or a plain tensor unchanged."""
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
    kinds = ("FullyShardedDataParallel", "FSDPModule")
    if any(_modules_of(module, kind) for kind in kinds):
        return True
    return any(map(is_dtensor, module.parameters()))


@contextmanager
def full_parameters(module: nn.Module, *, writeback: bool = False) -> Iterator[None]:
    """Context manager that gathers the full parameters of modules under FSDP 1.

    All processes must enter it. Under ``fully_shard`` parameters are DTensors instead, see
    :func:`full_tensor`.

    Parameters
    ----------
    module : nn.Module
    writeback : bool
        Whether to keep changes made inside the context.
    """
    for child in _modules_of(module, "FSDPModule"):
        child.reshard()  # after a forward pass it may hold copies, and writing to them is in vain
    if not _modules_of(module, "FullyShardedDataParallel"):
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


def _modules_of(module: nn.Module, kind: str) -> list[nn.Module]:
    """The modules whose class, or a base class of it, has this name."""
    children = module.modules()
    return [child for child in children if any(k.__name__ == kind for k in type(child).__mro__)]
