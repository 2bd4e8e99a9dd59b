"""The settings of a pair of adapters, and the scaling that follows from them."""

import math
import numbers
from dataclasses import dataclass

from .initialisers import INITIALISERS


@dataclass(frozen=True)
class AdapterSettings:
    """Ranks, scaling and initialisation of a main and a sub adapter.

    Parameters
    ----------
    r_main, r_sub : int
        Ranks, 0 or more.
    alpha : float
        Above 0; the adapters are scaled by alpha / (r_main + r_sub).
    init : {"rrqr", "svd", "kaiming"}
        See :mod:`recyclelora.adapters.initialisers`.
    sparse_a : bool
        Only for "rrqr": A is restricted to the pivot columns.

    Raises
    ------
    TypeError, ValueError
        If a value is wrong for every layer.

    Examples
    --------
    >>> AdapterSettings(r_main=3, r_sub=1, alpha=2.0).scaling
    0.5
    """

    r_main: int = 32
    r_sub: int = 4
    alpha: float = 1.0
    init: str = "rrqr"
    sparse_a: bool = False

    def __post_init__(self) -> None:
        for name in ("r_main", "r_sub"):
            rank = getattr(self, name)
            if isinstance(rank, bool) or not isinstance(rank, numbers.Integral):
                raise TypeError(f"{name} must be an int, got {rank!r}")
            if rank < 0:
                raise ValueError(f"{name} must be 0 or more, got {rank}")
            object.__setattr__(self, name, int(rank))
        alpha, init = self.alpha, self.init
        is_number = isinstance(alpha, numbers.Real) and not isinstance(alpha, bool)
        if not (is_number and math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"alpha must be a finite number above 0, got {alpha!r}")
        if not isinstance(init, str) or init not in INITIALISERS:
            raise ValueError(f"init must be one of {', '.join(INITIALISERS)}, got {init!r}")
        if self.sparse_a and init != "rrqr":
            raise ValueError(
                f"sparse_a=True needs init='rrqr', whose A is one-hot; init={init!r} has a dense A"
            )
        object.__setattr__(self, "alpha", float(alpha))

    @property
    def rank(self) -> int:
        """The rank of both adapters together."""
        return self.r_main + self.r_sub

    @property
    def scaling(self) -> float:
        """The factor s before B A: alpha / (r_main + r_sub), or 0 without adapters."""
        return self.alpha / self.rank if self.rank else 0.0
