"""Parameters and buffers of a model outside its adapters: a head, norms, biases."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from recyclelora.common.safetensors_file import STORABLE

from .layer import DualLoRALinear
from .pair import AdapterPair
from .selection import Patterns, checked_patterns, matches
from .sharding import is_dtensor
from .wrappers import plain_names, wrapped_attribute


def other_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers that belong to no adapter.

    Parameters
    ----------
    model : nn.Module
        A model, possibly wrapped.

    Returns
    -------
    dict[str, Tensor]
        The tensors by their names in the model without its wrappers. A shared tensor has several
        names.
    """
    plain, found = plain_names(model), {}
    for name, module in model.named_modules(remove_duplicate=False):
        own: dict[str, Any] = {}
        if isinstance(module, AdapterPair):
            own = {"bias": module.bias} if isinstance(module, DualLoRALinear) else {}
        elif wrapped_attribute(module) is None:
            left_out = module._non_persistent_buffers_set
            own = module._parameters | {
                key: buffer for key, buffer in module._buffers.items() if key not in left_out
            }
        prefix = f"{plain[name]}." if plain[name] else ""
        found |= {f"{prefix}{key}": tensor for key, tensor in own.items() if tensor is not None}
    return found


def select_tensors(model: nn.Module, also: Patterns) -> dict[str, Tensor]:
    """Return the tensors of :func:`other_tensors` whose name, or a parent module's name, matches.

    Parameters
    ----------
    model : nn.Module
        A model, possibly wrapped.
    also : Patterns
        Glob patterns on names of tensors or modules.

    Returns
    -------
    dict[str, Tensor]
        The tensors by name.

    Raises
    ------
    TypeError, ValueError
        If a pattern is not a string or matches nothing, or if a tensor cannot be stored.
    """
    patterns, found = checked_patterns("also", also) or (), {}
    names = other_tensors(model)
    around = {name: [name, *_modules_around(name)] for name in names}
    for pattern in patterns:
        chosen = [name for name in names if any(matches(n, (pattern,)) for n in around[name])]
        if not chosen:
            raise ValueError(
                f"the pattern {pattern!r} in also matches no parameter or buffer outside the "
                "adapters: expected a name as in named_parameters(), or a glob pattern such as "
                "'head.*'"
            )
        found |= {name: names[name] for name in chosen}
    for name, tensor in found.items():
        if reason := why_not_plain(tensor):
            raise ValueError(f"{name} cannot be saved: it {reason}")
    return {name: found[name] for name in names if name in found}


def check_other_tensors(found: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raise an error if saved values do not fit the tensors of these names in a model.

    Parameters
    ----------
    found : Mapping[str, Tensor]
        The model's tensors by name.
    saved : Mapping[str, Tensor]
        The saved values by name.

    Raises
    ------
    ValueError
        If a value does not fit. The message ends the sentence "the other tensors of FILE do not
        fit: ...".
    """
    for name, value in saved.items():
        if name not in found:
            raise ValueError(f"{name!r} is in the file but not in the model")
        target = found[name]
        if reason := why_not_plain(target):
            raise ValueError(f"{name!r} {reason} in the model")
        if target.is_inference() and not torch.is_inference_mode_enabled():
            raise ValueError(
                f"{name!r} was made in inference mode: load the file inside torch.inference_mode()"
            )
        if target.shape != value.shape:
            raise ValueError(
                f"{name!r} has shape {list(target.shape)} in the model and {list(value.shape)} in "
                "the file"
            )
        if target.is_floating_point() != value.is_floating_point():
            raise ValueError(
                f"{name!r} is {target.dtype} in the model and {value.dtype} in the file"
            )


def why_not_plain(tensor: Tensor) -> str | None:
    """Return the reason why a tensor's values cannot be stored or replaced.

    Parameters
    ----------
    tensor : Tensor
        The tensor.

    Returns
    -------
    str or None
        The end of a sentence that begins with the tensor's name, or None if the tensor is plain.
    """
    if is_lazy(tensor):
        return "is lazy and has no values yet (run one forward pass first)"
    if tensor.is_meta:
        return "is on the meta device and has no values (load them first)"
    if tensor.layout != torch.strided or tensor.dtype not in STORABLE:
        return f"is a {tensor.layout} tensor of {tensor.dtype}"
    if not is_dtensor(tensor) and type(tensor.data) is not Tensor:
        return f"is a {type(tensor.data).__name__}, not a plain tensor"
    if any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride())):
        return "is an expanded view"
    return None


def _modules_around(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
