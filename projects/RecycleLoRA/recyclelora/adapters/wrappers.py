"""Access to the model inside torch.compile, DDP, FSDP, DataParallel and other wrappers."""

import gc
import warnings
from collections.abc import Collection, Mapping, Set

import torch
from torch import nn

from .sharding import is_dtensor

# The attribute in which a wrapper stores its module, by the name of the wrapper's class.
WRAPPED = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "AveragedModel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "OffloadWrapper": "_checkpoint_wrapped_module",
    "DeepSpeedEngine": "module",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
    "_FabricModule": "_forward_module",
}


def plain_names(model: nn.Module) -> Mapping[str, str]:
    """Map the names of modules to their names in the model without its wrappers.

    Parameters
    ----------
    model : nn.Module
        A model, possibly wrapped.

    Returns
    -------
    Mapping[str, str]
        The plain names by the names in ``model``.

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
        if inner := wrapped_attribute(module):
            hidden[f"{name}.{inner}" if name else inner] = plain[name]
    return plain


def by_plain_name(model: nn.Module, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return modules by their names in the model without its wrappers.

    Parameters
    ----------
    model : nn.Module
        A model, possibly wrapped.
    modules : Mapping[str, nn.Module]
        Modules by their names in ``model``.

    Returns
    -------
    dict[str, nn.Module]
        The same modules by their plain names.
    """
    plain = plain_names(model)
    return {plain[name]: module for name, module in modules.items()}


def wrapped_attribute(module: nn.Module) -> str | None:
    """Return the attribute in which a wrapper stores its module.

    Parameters
    ----------
    module : nn.Module
        A module, possibly a wrapper.

    Returns
    -------
    str or None
        The name of the attribute, or None if ``module`` is not a wrapper.
    """
    for kind in type(module).__mro__:
        inner = WRAPPED.get(kind.__name__)
        if inner is not None and hasattr(module, inner):
            return inner
    return None


def holders(modules: Collection[nn.Module]) -> set[str]:
    """Return which wrappers hold parameters of these modules.

    Parameters
    ----------
    modules : Collection[nn.Module]
        The modules.

    Returns
    -------
    set[str]
        A subset of "DDP" and "FSDP".
    """
    found = {"FSDP" for m in modules if any(map(is_dtensor, m.parameters()))}
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        wrappers = _distributed_wrappers(set(modules))
        if wrappers:
            gc.collect()  # wrappers that are no longer referenced do not count
            wrappers = _distributed_wrappers(set(modules))
        found |= wrappers
    return found


def _distributed_wrappers(modules: Set[nn.Module]) -> set[str]:
    # The wrappers do not mark the modules inside them, so all objects are searched for wrappers.
    names = {"DistributedDataParallel": "DDP", "FullyShardedDataParallel": "FSDP"}
    kinds: dict[type, set[str]] = {}
    found = set()
    for obj in gc.get_objects():
        kind = type(obj)
        if kind not in kinds:
            kinds[kind] = {names[c.__name__] for c in kind.__mro__ if c.__name__ in names}
        if kinds[kind] and not modules.isdisjoint(obj.modules()):
            found |= kinds[kind]
    return found


def warn_of_new_parameters(layers: Collection[nn.Module]) -> None:
    """Warn once that layers get new parameters.

    Parameters
    ----------
    layers : Collection[nn.Module]
        The layers; no warning is issued if empty.

    Raises
    ------
    RuntimeError
        If DDP or FSDP holds the old parameters.
    """
    if not layers:
        return
    if holders(layers):
        raise RuntimeError(
            "DDP or FSDP holds the parameters of these layers, and a pair with other settings "
            "would replace them: activate or load the pair before wrapping the model"
        )
    warnings.warn(
        f"the settings of the adapter pair differ from those of the previous one, so "
        f"{len(layers)} layers get new parameters: create new optimisers from "
        "adapter_parameters(model)",
        stacklevel=3,
    )
