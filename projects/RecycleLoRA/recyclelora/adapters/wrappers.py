"""The model inside torch.compile, DDP, FSDP, DataParallel and other wrappers."""

import gc
from collections.abc import Mapping

import torch
from torch import nn

# The attribute under which a wrapper keeps its module, by the name of the wrapper's class.
WRAPPED = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "AveragedModel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "OffloadWrapper": "_checkpoint_wrapped_module",
}


def plain_names(model: nn.Module) -> Mapping[str, str]:
    """Names of modules in the model without its wrappers, by their names in ``model``.

    Examples
    --------
    >>> plain_names(nn.DataParallel(nn.Sequential(nn.ReLU())))
    {'': '', 'module': '', 'module.0': '0'}
    """
    plain: dict[str, str] = {}
    hidden: dict[str, str] = {}  # the name of a wrapper's module -> the wrapper's plain name
    for name, module in model.named_modules(remove_duplicate=False):
        parent, _, leaf = name.rpartition(".")
        if name in hidden:
            plain[name] = hidden[name]
        elif name:
            before = plain[parent]
            plain[name] = f"{before}.{leaf}" if before else leaf
        else:
            plain[name] = ""
        for kind in type(module).__mro__:
            if kind.__name__ in WRAPPED and hasattr(module, WRAPPED[kind.__name__]):
                inner = WRAPPED[kind.__name__]
                hidden[f"{name}.{inner}" if name else inner] = plain[name]
                break
    return plain


def check_replaceable(layer: nn.Module) -> None:
    """Raise if DDP or FSDP holds the parameters of ``layer``, so that they cannot be replaced."""
    holders = ("DistributedDataParallel", "FullyShardedDataParallel")
    sharded = any(type(p.data).__name__ == "DTensor" for p in layer.parameters(recurse=False))
    # DDP does not mark its module: look for wrappers among all objects.
    if not sharded and torch.distributed.is_available() and torch.distributed.is_initialized():
        wrappers = [
            obj
            for obj in gc.get_objects()
            if any(kind.__name__ in holders for kind in type(obj).__mro__)
        ]
        sharded = any(layer is child for wrapper in wrappers for child in wrapper.modules())
    if sharded:
        raise RuntimeError(
            "DDP or FSDP holds the parameters of this layer, and a pair with other settings would "
            "replace them: activate or load the pair before wrapping the model"
        )
