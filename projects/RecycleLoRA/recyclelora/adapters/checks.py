"""Validation of the layers, weights and names that adapters are made for."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .pair import AdapterPair
from .selection import is_conv1d, is_out_of_reach
from .settings import AdapterSettings

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_linear(linear: nn.Module, settings: AdapterSettings, name: str = "this layer") -> None:
    """Raise an error if a layer cannot be adapted with these settings.

    Parameters
    ----------
    linear : nn.Module
        The layer.
    settings : AdapterSettings
        Settings of the adapters.
    name : str
        Name of the layer in error messages.

    Raises
    ------
    TypeError
        If the layer is neither an ``nn.Linear`` nor a ``Conv1D``.
    ValueError
        If the layer is adapted already, lazy, quantised or distributed, if it has its own
        ``forward``, further tensors or hooks, or if :func:`check_weight` rejects its weight.
    """
    if isinstance(linear, AdapterPair):
        raise ValueError(
            f"{name} is adapted already: adapt a model once; add_pair() adds further adapters"
        )
    conv1d = is_conv1d(linear)
    if not isinstance(linear, nn.Linear) and not conv1d:
        raise TypeError(f"{name} must be an nn.Linear, got {type(linear).__name__}")
    if isinstance(linear, nn.LazyLinear) or is_lazy(linear.weight):
        raise ValueError(f"{name} is lazy and has no weight yet: run one forward pass first")
    if is_out_of_reach(linear.weight):
        raise ValueError(
            f"{name} has a quantised or distributed weight ({type(linear.weight.data).__name__}): "
            "adapt the model before it is quantised or sharded"
        )
    changed = not conv1d and type(linear).forward is not nn.Linear.forward
    if changed or "forward" in vars(linear):
        raise ValueError(
            f"{name} is a {type(linear).__name__} with its own forward, which adapters would "
            "replace: make it a plain nn.Linear first, or pass exclude=... to adapt"
        )
    extras = {key for key, _ in linear.named_parameters()} - {"weight", "bias"}
    extras |= {key for key, _ in linear.named_buffers()}
    if extras:
        raise ValueError(
            f"{name} computes its weight from {', '.join(sorted(extras))}: remove the "
            "parametrization (such as weight norm) first"
        )
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if any(getattr(linear, kind) for kind in kinds):
        raise ValueError(f"{name} has hooks, which adapt() would remove: register them afterwards")
    check_weight(linear.weight, settings, name)


def check_weight(weight: Tensor, settings: AdapterSettings, name: str = "this layer") -> None:
    """Raise an error if a weight cannot be decomposed with these settings.

    Parameters
    ----------
    weight : Tensor
        The weight (out, in).
    settings : AdapterSettings
        Settings of the adapters.
    name : str
        Name of the layer in error messages.

    Raises
    ------
    ValueError
        If the weight is not dense or not floating-point, if it is smaller than the rank, or if it
        contains NaN or Inf.
    """
    if weight.is_nested or weight.layout != torch.strided:
        kind = "a nested tensor" if weight.is_nested else weight.layout
        raise ValueError(f"{name} must have a dense weight, got {kind}: convert it first")
    if weight.dtype not in DTYPES:
        raise ValueError(f"{name} must have a floating-point weight, got {weight.dtype}")
    out_features, in_features = weight.shape
    if settings.rank > min(weight.shape):
        raise ValueError(
            f"r_main + r_sub = {settings.r_main} + {settings.r_sub} = {settings.rank} is above "
            f"min(out, in) = {min(weight.shape)} of {name} ({out_features} x {in_features}): "
            "choose lower ranks"
        )
    if not weight.is_meta and not torch.isfinite(weight).all():
        raise ValueError(f"the weight of {name} holds NaN or Inf: load finite weights first")


def check_pair_name(name: str, taken: Collection[str]) -> None:
    """Raise an error if a new pair of adapters cannot have this name.

    The name becomes part of the keys of the state dict.

    Parameters
    ----------
    name : str
        The new name.
    taken : Collection[str]
        Names of the existing pairs.

    Raises
    ------
    ValueError
        If the name is not an identifier, or if it is taken.
    """
    if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict, name):
        raise ValueError(f"a pair's name must be a plain word such as 'night', got {name!r}")
    if name in taken:
        raise ValueError(f"the adapter pair {name!r} exists already: choose another name")


def check_assigned_weight(value: object, pretrained: Tensor) -> None:
    """Raise an error if a value that is assigned to ``layer.weight`` is not the pretrained weight.

    Parameters
    ----------
    value : object
        The value.
    pretrained : Tensor
        W0 in the shape of ``layer.weight``.

    Raises
    ------
    ValueError
        If the value differs from W0.
    """
    if isinstance(value, Tensor) and value.shape == pretrained.shape:
        if value.is_meta and pretrained.is_meta:
            return
        if value.device == pretrained.device and torch.equal(value, pretrained):
            return
    raise ValueError(
        "the weight of an adapted layer is computed from its residual and its adapters and "
        "cannot be assigned: expected the tensor that the layer was adapted from, got another "
        "value; load or tie plain weights before adapt(), or call export() first"
    )
