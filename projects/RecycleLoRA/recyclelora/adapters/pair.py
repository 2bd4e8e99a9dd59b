"""One main and one sub adapter: the trained factors and the initial factors."""

import dataclasses
import itertools

import torch
from torch import Tensor, nn

from .initialisers import Factors
from .settings import AdapterSettings
from .sharding import copy_values

_SERIALS = itertools.count(1)  # one number a pair, by which a backward pass recognises it
HALF = (torch.float16, torch.bfloat16)


class AdapterPair(nn.Module):
    """Factors of a main and a sub adapter of one linear layer.

    The state dict holds the factors, the initial factors and alpha (as the module's extra state).

    Attributes
    ----------
    settings : AdapterSettings
    lora_A_main, lora_A_sub : Parameter, (r, in), or (r, r_main + r_sub) if ``sparse_a``
    lora_B_main, lora_B_sub : Parameter, (out, r)
        The factors of an adapter of rank 0 are None. Half precision bases have float32 factors.
    columns : Tensor, (r_main + r_sub,), int64, or None
        Pivot columns of main, then of sub; only for ``init="rrqr"``.
    initial_A : Tensor, (r_main + r_sub, in), or None
        Initial rows of A; None for ``init="rrqr"``, where they are one-hot at ``columns``.
    initial_B : Tensor, (out, r_main + r_sub)
    """

    FACTORS = ("lora_A_main", "lora_B_main", "lora_A_sub", "lora_B_sub")
    TENSORS = (*FACTORS, "columns", "initial_A", "initial_B")

    def __init__(self, factors: Factors, in_features: int, settings: AdapterSettings) -> None:
        super().__init__()
        self.in_features = in_features
        self.settings = settings
        self.serial = next(_SERIALS)
        self.register_buffer("columns", factors.columns)
        self.register_buffer("initial_A", factors.A)
        self.register_buffer("initial_B", factors.B)
        ranks = [settings.r_main, settings.r_sub]
        A_main, A_sub = self.initial_rows().split(ranks)
        B_main, B_sub = factors.B.split(ranks, dim=1)
        for name, factor in zip(self.FACTORS, (A_main, B_main, A_sub, B_sub)):
            parameter = nn.Parameter(factor.clone()) if factor.numel() else None
            self.register_parameter(name, parameter)

    @property
    def scaling(self) -> float:
        """The factor s before B A: alpha / (r_main + r_sub)."""
        return self.settings.scaling

    def tensors(self) -> dict[str, Tensor]:
        """The pair's tensors by name, detached; absent ones are left out."""
        present = ((name, getattr(self, name)) for name in self.TENSORS)
        return {name: tensor.detach() for name, tensor in present if tensor is not None}

    def initial_rows(self) -> Tensor:
        """Initial A of main, then of sub: (r_main + r_sub, in), or over ``columns`` if sparse."""
        if self.initial_A is not None:
            return self.initial_A
        rank, like = len(self.columns), self.initial_B
        if self.settings.sparse_a:
            return torch.eye(rank, dtype=like.dtype, device=like.device)
        rows = like.new_zeros(rank, self.in_features)
        return rows.scatter(1, self.columns[:, None], 1.0)

    def factors(self, main: bool, sub: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A_main, B_main, A_sub and B_sub: the current ones, or the initial ones where False."""
        initial_A, initial_B, r_main = self.initial_rows(), self.initial_B, self.settings.r_main
        initial = (initial_A[:r_main], initial_B[:, :r_main])
        initial += (initial_A[r_main:], initial_B[:, r_main:])
        current = (getattr(self, name) for name in self.FACTORS)
        A_main, B_main, A_sub, B_sub = (
            old if new is None or not on else new
            for new, old, on in zip(current, initial, (main, main, sub, sub))
        )
        return A_main, B_main, A_sub, B_sub

    def exchange(self, other: "AdapterPair") -> None:
        """Swap tensors and settings with another pair of the same layer.

        Values are swapped where settings and shapes match, so that optimisers and DDP keep the
        parameters they hold. Otherwise the parameters move as objects. The flags requires_grad
        stay: they belong to the active and the inactive place, not to the pair.
        """
        same = self.settings == other.settings
        for name in self.TENSORS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and same and mine.shape == theirs.shape:
                kept = mine.detach().clone()
                copy_values(mine, theirs)
                copy_values(theirs, kept)
                continue
            trains = [p is not None and p.requires_grad for p in (mine, theirs)]
            if isinstance(mine, nn.Parameter) and isinstance(theirs, nn.Parameter):
                theirs.requires_grad_(trains[0])
                mine.requires_grad_(trains[1])
            setattr(self, name, theirs)
            setattr(other, name, mine)
        self.serial, other.serial = other.serial, self.serial
        self.settings, other.settings = other.settings, self.settings

    def get_extra_state(self) -> Tensor:
        """Alpha, on which the computed function depends, for the state dict."""
        return torch.tensor([self.settings.alpha], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Set alpha from a state dict."""
        self.settings = dataclasses.replace(self.settings, alpha=float(state))

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        # Factors stay in float32 when the layer is cast to half precision.
        factors = [t for name in self.TENSORS if (t := getattr(self, name)) is not None]
        kept = {id(t) for factor in factors for t in (factor, factor.grad)}

        def apply(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            if id(tensor) in kept and out.dtype in HALF and tensor.dtype not in HALF:
                return tensor.to(out.device)
            return out

        return super()._apply(apply, recurse)
