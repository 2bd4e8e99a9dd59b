"""One main and one sub adapter: the factors that train and the ones they started from."""

import torch
from torch import Tensor, nn

from .initialisers import Factors


class AdapterPair(nn.Module):
    """Factors of a main and a sub adapter of one linear layer.

    The state dict holds all it takes to go on from here: the factors now, the initial factors and
    alpha (as the module's extra state).

    Attributes
    ----------
    lora_A_main, lora_A_sub : Parameter, (r, in), or (r, r_main + r_sub) if ``sparse_a``
    lora_B_main, lora_B_sub : Parameter, (out, r)
    columns : Tensor, (r_main + r_sub,), int64, or None
        Pivot columns of main, then of sub; only for ``init="rrqr"``.
    initial_A : Tensor, (r_main + r_sub, in), or None
        Initial rows of A; None for ``init="rrqr"``, where they are one-hot at ``columns``.
    initial_B : Tensor, (out, r_main + r_sub)
    """

    FACTORS = ("lora_A_main", "lora_B_main", "lora_A_sub", "lora_B_sub")
    TENSORS = (*FACTORS, "columns", "initial_A", "initial_B")
    SETTINGS = ("r_main", "r_sub", "alpha", "init", "sparse_a")

    def __init__(
        self,
        factors: Factors,
        in_features: int,
        *,
        r_main: int,
        r_sub: int,
        alpha: float,
        init: str,
        sparse_a: bool,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.r_main, self.r_sub, self.alpha = r_main, r_sub, float(alpha)
        self.init, self.sparse_a = init, sparse_a
        self.register_buffer("columns", factors.columns)
        self.register_buffer("initial_A", factors.A)
        self.register_buffer("initial_B", factors.B)
        A_main, A_sub = self.initial_rows().split([r_main, r_sub])
        B_main, B_sub = factors.B.split([r_main, r_sub], dim=1)
        self.lora_A_main = nn.Parameter(A_main.clone())
        self.lora_B_main = nn.Parameter(B_main.clone())
        self.lora_A_sub = nn.Parameter(A_sub.clone())
        self.lora_B_sub = nn.Parameter(B_sub.clone())

    @property
    def scaling(self) -> float:
        """The factor s before B A: alpha / (r_main + r_sub)."""
        rank = self.r_main + self.r_sub
        return self.alpha / rank if rank else 0.0

    def settings(self) -> dict[str, int | float | str | bool]:
        """The plain values that, with the tensors, make up the pair."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    def tensors(self) -> dict[str, Tensor]:
        """The pair's tensors by name, detached; those it does not have are left out."""
        present = ((name, getattr(self, name)) for name in self.TENSORS)
        return {name: tensor.detach() for name, tensor in present if tensor is not None}

    def initial_rows(self) -> Tensor:
        """Initial A of main, then of sub: (r_main + r_sub, in), or over ``columns`` if sparse."""
        if self.initial_A is not None:
            return self.initial_A
        rank, like = len(self.columns), self.initial_B
        if self.sparse_a:
            return torch.eye(rank, dtype=like.dtype, device=like.device)
        rows = like.new_zeros(rank, self.in_features)
        return rows.scatter(1, self.columns[:, None], 1.0)

    def factors(self, main: bool, sub: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A_main, B_main, A_sub and B_sub, as they are now, or if False as they were initially."""
        A_main, B_main, A_sub, B_sub = (
            self.lora_A_main,
            self.lora_B_main,
            self.lora_A_sub,
            self.lora_B_sub,
        )
        if not (main and sub):
            initial_A, initial_B = self.initial_rows(), self.initial_B
            if not main:
                A_main, B_main = initial_A[: self.r_main], initial_B[:, : self.r_main]
            if not sub:
                A_sub, B_sub = initial_A[self.r_main :], initial_B[:, self.r_main :]
        return A_main, B_main, A_sub, B_sub

    def exchange(self, other: "AdapterPair") -> None:
        """Swap tensors and settings with another pair of the same layer.

        Parameters stay the same objects, so an optimiser keeps what it knows of them. Which of
        the adapters train belongs to the place, not to the pair: it stays.
        """
        for name in self.TENSORS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, nn.Parameter):
                trains_here, trains_there = mine.requires_grad, theirs.requires_grad
                theirs.requires_grad_(trains_here)
                mine.requires_grad_(trains_there)
            setattr(self, name, theirs)
            setattr(other, name, mine)
        for name in self.SETTINGS:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, theirs)
            setattr(other, name, mine)

    def get_extra_state(self) -> Tensor:
        """Alpha, without which the factors mean another function; in the state dict."""
        return torch.tensor([self.alpha], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take alpha over from a state dict."""
        self.alpha = float(state)
