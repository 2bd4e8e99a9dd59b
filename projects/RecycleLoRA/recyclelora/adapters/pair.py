"""One main and one sub adapter: the trained factors and the initial factors."""

import copy
import dataclasses
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .initialisers import Factors, one_hot_rows
from .settings import AdapterSettings
from .sharding import copy_values

_SERIALS = itertools.count(1)
HALF = (torch.float16, torch.bfloat16)


def new_serial() -> int:
    """Return a new serial number of a pair or mixture.

    A backward pass compares the number with that of the forward pass.

    Returns
    -------
    int
        A number that no other pair or mixture of this process has.
    """
    return next(_SERIALS)


class AdapterPair(nn.Module):
    """Factors of a main and a sub adapter of one linear layer.

    The state dict contains the factors, the initial factors, and alpha as the extra state.

    Attributes
    ----------
    settings : AdapterSettings
        Ranks, scaling and initialisation.
    lora_A_main, lora_A_sub : Parameter, (r, in), or (r, r_main + r_sub) if ``sparse_a``
        The factors A.
    lora_B_main, lora_B_sub : Parameter, (out, r)
        The factors B. The factors of an adapter of rank 0 are None. The factors of bases in half
        precision are float32. The factors in ``settings.frozen`` are not trained.
    columns : Tensor, (r_main + r_sub,), int64, or None
        Pivot columns of main, then of sub; only if the initial A is one-hot (``init="rrqr"``).
    initial_A : Tensor, (r_main + r_sub, in), or None
        Initial rows of A, or None if they are one-hot at ``columns``.
    initial_B : Tensor, (out, r_main + r_sub)
        Initial columns of B.
    """

    FACTORS = ("lora_A_main", "lora_B_main", "lora_A_sub", "lora_B_sub")
    TENSORS = (*FACTORS, "columns", "initial_A", "initial_B")

    def __init__(self, factors: Factors, in_features: int, settings: AdapterSettings) -> None:
        super().__init__()
        self.in_features = in_features
        self.settings = settings = settings.of_pair()
        self.serial = new_serial()
        self.register_buffer("columns", factors.columns)
        self.register_buffer("initial_A", factors.A)
        self.register_buffer("initial_B", factors.B)
        ranks = [settings.r_main, settings.r_sub]
        A_main, A_sub = self.initial_rows().split(ranks)
        B_main, B_sub = factors.B.split(ranks, dim=1)
        for name, factor in zip(self.FACTORS, (A_main, B_main, A_sub, B_sub)):
            trains = name not in settings.frozen
            parameter = nn.Parameter(factor.clone(), trains) if factor.numel() else None
            self.register_parameter(name, parameter)

    @property
    def scaling(self) -> float:
        """The factor s = alpha / (r_main + r_sub) of B A, or 0 if both ranks are 0."""
        return self.settings.scaling

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the pair, detached.

        Returns
        -------
        dict[str, Tensor]
            The tensors by name. Absent ones are left out.
        """
        present = ((name, getattr(self, name)) for name in self.TENSORS)
        return {name: tensor.detach() for name, tensor in present if tensor is not None}

    def initial_rows(self) -> Tensor:
        """Return the initial A of main, followed by that of sub.

        Returns
        -------
        Tensor
            Rows (r_main + r_sub, in), or (r_main + r_sub, r_main + r_sub) if the pair is sparse.
        """
        if self.initial_A is not None:
            return self.initial_A
        rank, like = len(self.columns), self.initial_B
        if self.settings.sparse_a:
            return torch.eye(rank, dtype=like.dtype, device=like.device)
        return one_hot_rows(self.columns, self.in_features, like)

    def factors(self, main: bool, sub: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the factors A_main, B_main, A_sub and B_sub.

        Parameters
        ----------
        main, sub : bool
            Whether to return the current factors of this adapter. False returns the initial ones.

        Returns
        -------
        tuple[Tensor, Tensor, Tensor, Tensor]
            The four factors.
        """
        current = (self.lora_A_main, self.lora_B_main, self.lora_A_sub, self.lora_B_sub)
        r_main, r_sub = self.settings.r_main, self.settings.r_sub
        if main and sub and r_main and r_sub:  # usually; does not compute the initial rows
            return current
        initial_A, initial_B = self.initial_rows(), self.initial_B
        initial = (initial_A[:r_main], initial_B[:, :r_main])
        initial += (initial_A[r_main:], initial_B[:, r_main:])
        A_main, B_main, A_sub, B_sub = (
            old if new is None or not on else new
            for new, old, on in zip(current, initial, (main, main, sub, sub))
        )
        return A_main, B_main, A_sub, B_sub

    def residual_of(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the residual of a weight, and the values that restore the weight from it.

        Parameters
        ----------
        weight : Tensor
            The pretrained weight W0 (out, in).

        Returns
        -------
        residual : Tensor
            W_res = W0 - s B_init A_init (out, in), in the dtype of ``weight``.
        lost : Tensor or None
            None if B_init A_init is 0, the pivot columns of W0 if A_init is one-hot, and all of W0
            otherwise.
        """
        initial_B = self.initial_B.double()
        if self.settings.zero_product or self.settings.rank == 0:
            return weight, None
        if self.columns is not None:
            lost = weight.index_select(1, self.columns)
            pivots = lost.double() - self.scaling * initial_B
            return weight.index_copy(1, self.columns, pivots.to(weight.dtype)), lost
        product = self.scaling * (initial_B @ self.initial_A.double())
        return (weight.double() - product).to(weight.dtype), weight.clone()

    def change(self, main: bool = True, sub: bool = True) -> tuple[Tensor, Tensor]:
        """Return the factors of dW = s (B A - B_init A_init), the change of the weight by training.

        Parameters
        ----------
        main, sub : bool
            Whether to include the change of this adapter.

        Returns
        -------
        A : Tensor
            Rows (n, in), detached.
        B : Tensor
            Columns (out, n), detached, with dW = B A.
        """
        rows = [self.initial_B.new_zeros(0, self.in_features)]
        columns = [self.initial_B[:, :0]]
        current, initial = self.factors(main, sub), self.factors(False, False)
        for first, on in ((0, main), (2, sub)):
            if on:
                (A, B), (A_init, B_init) = current[first : first + 2], initial[first : first + 2]
                rows += [self.dense_rows(A.detach()), self.dense_rows(A_init)]
                columns += [self.scaling * B.detach(), -self.scaling * B_init]
        return torch.cat(rows), torch.cat(columns, dim=1)

    def apply_change(self, x: Tensor, main: bool = True, sub: bool = True) -> Tensor:
        """Return ``dW x`` without forming dW, which is defined in :meth:`change`.

        Parameters
        ----------
        x : Tensor
            Inputs (..., in).
        main, sub : bool
            Whether to include the change of this adapter.

        Returns
        -------
        Tensor
            Outputs (..., out).
        """
        x = x.to(self.initial_B.dtype)
        pivots = None if self.columns is None else x.index_select(-1, self.columns)
        change = x.new_zeros(*x.shape[:-1], len(self.initial_B))
        r_main, rank = self.settings.r_main, self.settings.rank
        for kind, start, stop, on in (("main", 0, r_main, main), ("sub", r_main, rank, sub)):
            if on and stop > start:
                A, B = getattr(self, f"lora_A_{kind}"), getattr(self, f"lora_B_{kind}")
                inner = F.linear(pivots if self.settings.sparse_a else x, A.detach())
                if pivots is None:
                    before = F.linear(x, self.initial_A[start:stop])
                else:  # the one-hot rows of the initial A select the pivots
                    before = pivots[..., start:stop]
                change = change + F.linear(inner, B.detach())
                change = change - F.linear(before, self.initial_B[:, start:stop])
        return self.scaling * change

    def dense_rows(self, A: Tensor) -> Tensor:
        """Return rows of A with one column for each input feature.

        Parameters
        ----------
        A : Tensor
            Rows (r, in), or (r, r_main + r_sub) if the pair is sparse.

        Returns
        -------
        Tensor
            Rows (r, in).
        """
        if not self.settings.sparse_a:
            return A
        return A.new_zeros(len(A), self.in_features).index_copy(1, self.columns, A)

    def to_dense(self) -> "AdapterPair":
        """Return a copy without the restriction ``sparse_a``.

        Returns
        -------
        AdapterPair
            The copy. Its ``lora_A_main`` and ``lora_A_sub`` are (r, in), with zeros outside the
            pivot columns.
        """
        dense = copy.deepcopy(self)
        if self.settings.sparse_a:
            for name in ("lora_A_main", "lora_A_sub"):
                if (A := getattr(self, name)) is not None:
                    rows = self.dense_rows(A.detach())
                    setattr(dense, name, nn.Parameter(rows, A.requires_grad))
            dense.settings = dataclasses.replace(self.settings, sparse_a=False)
        return dense

    def exchange(self, other: "AdapterPair") -> None:
        """Swap tensors and settings with another pair of the same layer.

        Values are swapped if settings and shapes match, so that the parameters in optimisers and
        DDP stay valid. Otherwise the parameters themselves are swapped. The flags ``requires_grad``
        are not swapped: active pairs train and inactive pairs do not. Frozen factors never train.

        Parameters
        ----------
        other : AdapterPair
            The other pair.
        """
        same = self.settings == other.settings
        trains = [{name: pair._trains(name) for name in self.FACTORS} for pair in (self, other)]
        for name in self.TENSORS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and same and mine.shape == theirs.shape:
                kept = mine.detach().clone()
                copy_values(mine, theirs)
                copy_values(theirs, kept)
                continue
            setattr(self, name, theirs)
            setattr(other, name, mine)
        self.serial, other.serial = other.serial, self.serial
        self.settings, other.settings = other.settings, self.settings
        for pair, flags in zip((self, other), trains):
            for name, flag in flags.items():
                if not same and getattr(pair, name) is not None:
                    getattr(pair, name).requires_grad_(flag and name not in pair.settings.frozen)

    def _trains(self, name: str) -> bool:
        """Return whether a factor is trained, or the others if this factor is absent or frozen."""
        for other in (name, name.replace("_B_", "_A_"), *self.FACTORS):
            factor = getattr(self, other)
            if factor is not None and other not in self.settings.frozen:
                return factor.requires_grad
        return False

    def get_extra_state(self) -> Tensor:
        """Return alpha, on which the computed function depends, for the state dict.

        Returns
        -------
        Tensor
            Alpha as a tensor (1,) of float64 on the CPU.
        """
        return torch.tensor([self.settings.alpha], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Set alpha from a state dict.

        Parameters
        ----------
        state : Tensor
            The result of :meth:`get_extra_state`.
        """
        self.settings = dataclasses.replace(self.settings, alpha=float(state))

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        # Factors stay in float32 when the layer is cast to half precision.
        factors = [t for name in self.TENSORS if (t := getattr(self, name)) is not None]
        kept = {id(t) for factor in factors for t in (factor, factor.grad)}

        def apply(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            if id(tensor) in kept and out.dtype in HALF and tensor.dtype not in HALF:
                return tensor.to(out.device, torch.float32)
            return out

        return super()._apply(apply, recurse)
