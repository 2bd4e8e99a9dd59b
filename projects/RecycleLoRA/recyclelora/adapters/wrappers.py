"""The model inside torch.compile, DDP, FSDP, DataParallel and other wrappers."""

from collections.abc import Mapping

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
