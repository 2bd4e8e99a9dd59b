"""The settings of a pair of adapters, and the scaling that follows from them."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .initialisers import INITIALISERS, Initialiser

CUSTOM = "custom"  # replaces the function that made the initial factors of a pair
InitFunction = Callable[[Tensor, int, str], tuple[Tensor, Tensor]]
Init = str | Sequence[str] | InitFunction


@dataclass(frozen=True)
class AdapterSettings:
    """Ranks, scaling and initialisation of a main and a sub adapter.

    Parameters
    ----------
    r_main, r_sub : int
        Ranks, 0 or more.
    alpha : float
        Above 0; the adapters are scaled by alpha / (r_main + r_sub).
    init : str, pair of str or Callable
        A name of an initialiser (see :mod:`recyclelora.adapters.initialisers`); a pair (main, sub)
        of names; or a function ``f(weight (out, in), r, side) -> (A (r, in), B (out, r))`` with
        side "main" or "sub", which is called if r is above 0. In the settings of a pair of
        adapters, the name "custom" replaces a function.
    sparse_a : bool
        A is restricted to the pivot columns; only for initialisers with one-hot A ("rrqr").

    Raises
    ------
    TypeError, ValueError
        If a value is invalid.

    Examples
    --------
    >>> AdapterSettings(r_main=3, r_sub=1, alpha=2.0).scaling
    0.5
    >>> AdapterSettings(r_main=3, r_sub=1, init=("rrqr", "kaiming")).sides
    ('rrqr', 'kaiming')
    """

    r_main: int = 32
    r_sub: int = 4
    alpha: float = 1.0
    init: Init = "rrqr"
    sparse_a: bool = False

    def __post_init__(self) -> None:
        for name in ("r_main", "r_sub"):
            rank = getattr(self, name)
            if isinstance(rank, bool) or not isinstance(rank, numbers.Integral):
                raise TypeError(f"{name} must be an int, got {rank!r}")
            if rank < 0:
                raise ValueError(f"{name} must be 0 or more, got {rank}")
            object.__setattr__(self, name, int(rank))
        alpha = self.alpha
        is_number = isinstance(alpha, numbers.Real) and not isinstance(alpha, bool)
        if not (is_number and math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"alpha must be a finite number above 0, got {alpha!r}")
        object.__setattr__(self, "alpha", float(alpha))
        object.__setattr__(self, "init", _checked_init(self.init))
        dense = [repr(word) for word in self._in_use() if not _has(word, "one_hot")]
        if self.sparse_a and dense:
            raise ValueError(
                f"sparse_a=True needs init='rrqr', whose A is one-hot; init={dense[0]} has a "
                "dense A"
            )

    @property
    def rank(self) -> int:
        """The sum of both ranks."""
        return self.r_main + self.r_sub

    @property
    def scaling(self) -> float:
        """The factor s = alpha / (r_main + r_sub) of B A, or 0 if both ranks are 0."""
        return self.alpha / self.rank if self.rank else 0.0

    @property
    def sides(self) -> tuple[str | InitFunction, str | InitFunction]:
        """The initialisers of main and of sub."""
        return self.init if isinstance(self.init, tuple) else (self.init, self.init)

    @property
    def one_hot(self) -> bool:
        """Whether the initial A of every adapter above rank 0 is one-hot."""
        return all(_has(word, "one_hot") for word in self._in_use())

    @property
    def random(self) -> bool:
        """Whether the weight does not determine the initial factors (random or custom ones)."""
        return any(_entry(word) is None or _has(word, "random") for word in self._in_use())

    @property
    def zero_product(self) -> bool:
        """Whether the product of the initial factors is 0, so that W_res = W0."""
        return all(_has(word, "zero_product") for word in self._in_use())

    @property
    def frozen(self) -> list[str]:
        """The names of the factors that are not trained."""
        ranks = {"main": self.r_main, "sub": self.r_sub}
        sides = zip(self.sides, ranks.items())
        return [f"lora_B_{s}" for word, (s, rank) in sides if rank and _has(word, "frozen_B")]

    def of_pair(self) -> "AdapterSettings":
        """Return the settings in the form that a pair of adapters stores.

        A function becomes the name "custom". Two equal names become one. If an adapter has rank 0,
        its name is ignored.

        Returns
        -------
        AdapterSettings
            The settings.
        """
        words = [CUSTOM if callable(word) else word for word in self._in_use()]
        init = words[0] if len(set(words)) == 1 or not self.rank else tuple(words)
        return dataclasses.replace(self, init=init)

    def _in_use(self) -> list[str | InitFunction]:
        """Return the initialisers of the adapters above rank 0, or both if both ranks are 0."""
        ranks = (self.r_main, self.r_sub)
        return [word for word, rank in zip(self.sides, ranks) if rank or not self.rank]


def _checked_init(init: Init) -> str | tuple[str, str] | InitFunction:
    if isinstance(init, str):
        if init in INITIALISERS or init == CUSTOM:
            return init
    elif callable(init):
        return init
    elif isinstance(init, Sequence) and len(init) == 2:
        main, sub = init
        if all(isinstance(word, str) and word in INITIALISERS for word in (main, sub)):
            return main if main == sub else (main, sub)
    raise ValueError(
        f"init must be one of {', '.join(INITIALISERS)}, a pair (main, sub) of them, or a function "
        f"f(weight, r, side) that returns A (r, in) and B (out, r), got {init!r}"
    )


def _entry(word: str | InitFunction) -> Initialiser | None:
    """The entry of a name in the table; None for a function, and for "custom"."""
    return INITIALISERS.get(word) if isinstance(word, str) else None


def _has(word: str | InitFunction, attribute: str) -> bool:
    entry = _entry(word)
    return entry is not None and getattr(entry, attribute)
