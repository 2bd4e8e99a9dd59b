"""The model inside torch.compile, DDP, FSDP, DataParallel and other wrappers."""

import gc
import warnings
from collections.abc import Collection, Mapping

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


def warn_of_new_parameters(layers: Collection[nn.Module]) -> None:
    """Warn once that these layers get new parameters; raise if DDP or FSDP holds the old ones."""
    if not layers:
        return
    held = any(type(p.data).__name__ == "DTensor" for layer in layers for p in layer.parameters())
    # DDP does not mark its module: look for wrappers among all objects.
    if not held and torch.distributed.is_available() and torch.distributed.is_initialized():
        holders = ("DistributedDataParallel", "FullyShardedDataParallel")
        kinds = ((obj, [kind.__name__ for kind in type(obj).__mro__]) for obj in gc.get_objects())
        wrappers = [obj for obj, names in kinds if any(holder in names for holder in holders)]
        held = any(child in layers for wrapper in wrappers for child in wrapper.modules())
    if held:
        raise RuntimeError(
            "DDP or FSDP holds the parameters of these layers, and a pair with other settings "
            "would replace them: activate or load the pair before wrapping the model"
        )
    warnings.warn(
        f"the adapter pair has other settings than the one before it, so {len(layers)} layers get "
        "new parameters: make optimisers anew from adapter_parameters(model)",
        stacklevel=4,
    )
