"""What may be adapted, and with which settings: one sentence for everything that may not."""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .initialisers import INITIALISERS, Factors
from .pair import AdapterPair

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_settings(r_main: int, r_sub: int, alpha: float, init: str, sparse_a: bool) -> None:
    """Raise if the settings are wrong for every layer."""
    for name, rank in (("r_main", r_main), ("r_sub", r_sub)):
        if isinstance(rank, bool) or not isinstance(rank, int):
            raise TypeError(f"{name} must be an int, got {rank!r}")
        if rank < 0:
            raise ValueError(f"{name} must be 0 or more, got {rank}")
    known = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not (known and math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha must be a finite number above 0, got {alpha!r}")
    if not isinstance(init, str) or init not in INITIALISERS:
        raise ValueError(f"init must be one of {', '.join(INITIALISERS)}, got {init!r}")
    if sparse_a and init != "rrqr":
        raise ValueError(
            f"sparse_a=True needs init='rrqr', whose A is one-hot; init={init!r} has a dense A"
        )


def check_linear(linear: nn.Module, r_main: int, r_sub: int, name: str = "this layer") -> None:
    """Raise if ``linear`` cannot take adapters of these ranks; ``name`` is what to call it."""
    if isinstance(linear, AdapterPair):
        raise ValueError(
            f"{name} is adapted already: adapt a model once; add_pair() adds further adapters"
        )
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"{name} must be an nn.Linear, got {type(linear).__name__}")
    if isinstance(linear, nn.LazyLinear) or is_lazy(linear.weight):
        raise ValueError(f"{name} is lazy, it has no weight yet: run one forward pass first")
    if type(linear).forward is not nn.Linear.forward or "forward" in vars(linear):
        raise ValueError(
            f"{name} is a {type(linear).__name__} with a forward of its own, which adapters would "
            "replace: make it a plain nn.Linear first"
        )
    extras = {key for key, _ in linear.named_parameters()} - {"weight", "bias"}
    extras |= {key for key, _ in linear.named_buffers()}
    if extras:
        raise ValueError(
            f"{name} computes its weight from {', '.join(sorted(extras))}: remove the "
            "parametrization (weight norm and the like) first"
        )
    if linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks:
        raise ValueError(f"{name} has hooks, which adapting would lose: register them afterwards")
    check_weight(linear.weight, r_main, r_sub, name)


def check_weight(weight: Tensor, r_main: int, r_sub: int, name: str = "this layer") -> None:
    """Raise if a weight (out, in) cannot be decomposed with these ranks."""
    if weight.dtype not in DTYPES:
        raise ValueError(f"{name} must have a floating-point weight, got {weight.dtype}")
    out_features, in_features = weight.shape
    if r_main + r_sub > min(weight.shape):
        raise ValueError(
            f"r_main + r_sub = {r_main} + {r_sub} = {r_main + r_sub} is above min(out, in) = "
            f"{min(weight.shape)} of {name} ({out_features} x {in_features}): choose lower ranks"
        )
    if not weight.is_meta and not torch.isfinite(weight).all():
        raise ValueError(f"the weight of {name} holds NaN or Inf: load finite weights first")


def check_factors(
    factors: Factors, weight: Tensor, *, r_main: int, r_sub: int, init: str, **other: object
) -> None:
    """Raise if ``factors`` are not the initial ones of a weight (out, in) with these settings."""
    (out_features, in_features), rank = weight.shape, r_main + r_sub
    shapes = {"B": (out_features, rank)}
    shapes |= {"columns": (rank,)} if init == "rrqr" else {"A": (rank, in_features)}
    for name, factor in zip(Factors._fields, factors):
        shape = None if factor is None else tuple(factor.shape)
        if shape != shapes.get(name):
            raise ValueError(f"initial {name} is {shape}, expected {shapes.get(name)}")
    columns = factors.columns
    if columns is not None and columns.numel():
        whole = columns.dtype == torch.int64
        if not whole or int(columns.min()) < 0 or int(columns.max()) >= in_features:
            raise ValueError(f"its pivot columns are not 0..{in_features - 1}")


def check_pair_name(name: str, taken: Collection[str]) -> None:
    """Raise if ``name`` cannot name a further pair: it becomes part of state-dict keys."""
    if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict, name):
        raise ValueError(f"a pair's name must be a plain word such as 'night', got {name!r}")
    if name in taken:
        raise ValueError(f"there is an adapter pair {name!r} already: choose another name")
