"""Which layers a model does not call but reads the weight of, as found in its compiled code."""

import dis
import functools
import inspect
from collections.abc import Collection
from itertools import pairwise

from torch import nn

NO_VALUES = {"data_ptr", "device", "dtype", "is_cuda", "ndim", "requires_grad", "shape", "size"}


def layers_read_by_parents(model: nn.Module, layers: Collection[nn.Module]) -> set[nn.Module]:
    """The layers whose parent's methods contain ``self.NAME.weight``.

    Such a method may read the weight instead of calling the layer (timm's EVA and BEiT,
    torchvision's Swin, fast paths of PyTorch), or read it in some cases only.
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
    """Names of attributes whose ``weight`` a method of the class uses by its values."""
    names = set()
    for cls in kind.__mro__:
        if cls in (nn.Module, object):
            continue
        for method, member in vars(cls).items():
            if "init" in method or "reset" in method:  # they draw weights
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
