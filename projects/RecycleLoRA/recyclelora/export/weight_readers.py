"""Detection of layers whose weight a model reads without calling them, from compiled code."""

import dis
import functools
import inspect
from collections.abc import Collection
from itertools import pairwise

from torch import nn

NO_VALUES = {"data_ptr", "device", "dtype", "is_cuda", "ndim", "requires_grad", "shape", "size"}


def layers_read_by_parents(model: nn.Module, layers: Collection[nn.Module]) -> set[nn.Module]:
    """Return the layers whose parent's methods contain ``self.NAME.weight``.

    Such a method may read the weight instead of calling the layer (timm's EVA and BEiT,
    torchvision's Swin, fast paths of PyTorch). It may also do so only in some cases.

    Parameters
    ----------
    model : nn.Module
        The model.
    layers : Collection[nn.Module]
        The layers to check.

    Returns
    -------
    set of nn.Module
        The layers.
    """
    found = set()
    for parent in model.modules():
        children = {name: child for name, child in parent._modules.items() if child in layers}
        if children:
            read = _read_weights(type(parent))
            found |= {child for name, child in children.items() if name in read}
    return found


@functools.cache
def _read_weights(kind: type[nn.Module]) -> frozenset[str]:
    """Return names of attributes whose ``weight`` is read by value in a method of the class."""
    names = set()
    for cls in kind.__mro__:
        if cls in (nn.Module, object):
            continue
        for method, member in vars(cls).items():
            if "init" in method or "reset" in method:  # these methods initialise weights
                continue
            code = getattr(inspect.unwrap(member), "__code__", None) if callable(member) else None
            if code is None:
                continue
            loads = [i.argval if i.opname.startswith("LOAD_") else None for i in _steps(code)]
            for (name, key), after in zip(pairwise(loads), [*loads[2:], None]):
                if key == "weight" and isinstance(name, str) and after not in NO_VALUES:
                    names.add(name)
    return frozenset(names)


def _steps(code: object) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
