"""Initial factors B A of a weight: the table of initialisers, their definitions and sources.

Every initialiser makes factors for a main adapter, for a sub adapter, or for both. The frozen
residual is W_res = W0 - s B A, with s the scaling, so the outputs of the pretrained network are
unchanged. With the SVD W0 = U S V', m = min(out, in), and singular values in descending order:

============== ============================== ============================== =============
word           main                           sub                            s B A at first
============== ============================== ============================== =============
``rrqr``       last pivots of W0 P = Q R      first pivots                   subtracted
``svd``        smallest singular triplets     largest singular triplets      subtracted
``kaiming``    A random, B = 0                the same                       0
``pissa``      largest singular triplets      the following ones             subtracted
``olora``      first rows and columns of Q R  the following ones             subtracted
``mica``       last columns of U, A = 0       the ones before them           0
``orthogonal`` random, B A = 0                the same                       0
============== ============================== ============================== =============

Initialisers of one end of the spectrum (``pissa``, ``olora``, ``mica``) use it for both adapters,
as their papers define it. Main then gets the first directions, and both adapters together are the
published method of rank r_main + r_sub. To add an initialiser, add an entry to
:data:`INITIALISERS`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..ops import rrqr


class Factors(NamedTuple):
    """Initial factors of the main adapter (first r_main) and the sub adapter (last r_sub).

    ``B`` is (out, r_main + r_sub). ``A`` is (r_main + r_sub, in), or None where its rows are
    one-hot: then row i is 1 at ``columns[i]``, and ``columns`` is (r_main + r_sub,), int64. The
    factors of a stack of weights have one more dimension in front.
    """

    A: Tensor | None
    B: Tensor
    columns: Tensor | None


@dataclass(frozen=True)
class Initialiser:
    """An entry of the table: a function, and properties of the factors that it returns.

    Attributes
    ----------
    function : Callable
        ``function(weight (..., out, in), r_main, r_sub, scaling) -> Factors``; called with ranks
        that are not both 0.
    decomposition : Callable, optional
        Decomposes the weight; ``function`` then receives the result in place of the weight. If the
        initialisers of main and sub have the same decomposition, it runs once.
    one_hot : bool
        Whether the rows of A are one-hot, so that ``Factors.columns`` defines A.
    random : bool
        Whether the factors are drawn from torch's global generator.
    zero_product : bool
        Whether B A = 0, so that W_res = W0.
    frozen_B : bool
        Whether only A trains.
    """

    function: Callable[[Any, int, int, float], Factors]
    decomposition: Callable[[Tensor], Any] | None = None
    one_hot: bool = False
    random: bool = False
    zero_product: bool = False
    frozen_B: bool = False

    def __call__(self, weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
        """The factors of a weight (..., out, in)."""
        return self.function(self.decomposed(weight), r_main, r_sub, scaling)

    def decomposed(self, weight: Tensor) -> Any:
        """The argument of ``function``: the decomposition of the weight, or the weight itself."""
        return weight if self.decomposition is None else self.decomposition(weight)


class ThinSvd(NamedTuple):
    """The thin SVD of a weight in float64, and the dtype of factors made from it."""

    u: Tensor
    s: Tensor
    vt: Tensor
    dtype: torch.dtype


def factor_dtype(weight: Tensor) -> torch.dtype:
    """float32 for weights in half precision, else the dtype of the weight."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def one_hot_rows(columns: Tensor, in_features: int, like: Tensor) -> Tensor:
    """Rows (..., r, in_features) that are 1 at ``columns`` (..., r), in the dtype of ``like``."""
    rows = like.new_zeros(*columns.shape, in_features)
    return rows.scatter(-1, columns[..., None], 1.0)


def thin_svd(weight: Tensor) -> ThinSvd:
    """The thin SVD of a weight (..., out, in), computed in float64."""
    return ThinSvd(*torch.linalg.svd(weight.double(), full_matrices=False), factor_dtype(weight))


def rrqr_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Minor directions for main, major directions for sub (paper, eqs. 5 to 7).

    With ``weight[:, P] = Q R`` and m = min(out, in): main takes the last r_main columns of Q and
    the pivots P[m - r_main + i], sub the first r_sub columns of Q and the pivots P[i].

    Deviation: eq. 7 counts main's pivots back from in, not from m. For a wide weight those
    columns have no direction in Q; the published code, and this one, counts from m.
    """
    perm, q_major, q_minor, _ = rrqr(weight.to(factor_dtype(weight)), r_sub, r_main)
    last = min(weight.shape[-2:])
    columns = torch.cat([perm[..., last - r_main : last], perm[..., :r_sub]], dim=-1)
    return Factors(None, torch.cat([q_minor, q_major], dim=-1), columns)


def svd_factors(svd: ThinSvd, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Singular triplets: the r_main smallest for main, the r_sub largest for sub.

    Main is MiLoRA (Wang et al., 2024, arXiv:2406.09044, section 3), sub is PiSSA, see
    :func:`pissa_factors`.
    """
    last = svd.s.shape[-1]
    return _triplets(svd, [*range(last - r_main, last), *range(r_sub)], scaling)


def kaiming_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """As LoRA (Hu et al., 2021, arXiv:2106.09685) is implemented: A Kaiming-uniform, B zero.

    The bound of A is that of ``nn.Linear``, 1 / sqrt(in). Deviation: the paper (section 4.1) draws
    A from a Gaussian; its code, and this one, does not.
    """
    *stack, out_features, in_features = weight.shape
    dtype = factor_dtype(weight)
    A = weight.new_empty(*stack, r_main + r_sub, in_features, dtype=dtype)
    for one in A.view(math.prod(stack), r_main + r_sub, in_features):
        for rows in one.split([r_main, r_sub]):
            if rows.numel():
                nn.init.kaiming_uniform_(rows, a=math.sqrt(5))
    return Factors(A, weight.new_zeros(*stack, out_features, r_main + r_sub, dtype=dtype), None)


def pissa_factors(svd: ThinSvd, r_main: int, r_sub: int, scaling: float) -> Factors:
    """PiSSA: the principal singular triplets (Meng et al., 2024, arXiv:2404.02948, section 3).

    B = U sqrt(S / s) and A = sqrt(S / s) V' of the r largest singular values. The paper's A is B
    here, and its s is 1; S is divided by s as in the package peft, so that s B A is exactly the
    principal part of the weight.
    """
    return _triplets(svd, list(range(r_main + r_sub)), scaling)


def olora_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """OLoRA: the QR of the weight (Büyükakyüz, 2024, arXiv:2406.01775, section 3).

    With ``weight = Q R``, not pivoted: B is the first r columns of Q, A the first r rows of R, and
    W_res = W0 - s B A.
    """
    q, r = torch.linalg.qr(weight.to(factor_dtype(weight)))
    rank = r_main + r_sub
    return Factors(r[..., :rank, :], q[..., :rank], None)


def mica_factors(svd: ThinSvd, r_main: int, r_sub: int, scaling: float) -> Factors:
    """MiCA: minor left singular vectors (Rüdiger and Raschka, 2026, arXiv:2604.01694).

    B = U[:, -r:], which stays frozen, and A = 0, which trains: the weight changes in the span of
    its least left singular vectors alone. As in the package peft, U is that of the thin SVD.
    """
    last, rank = svd.s.shape[-1], r_main + r_sub
    order = [*range(last - r_main, last), *range(last - rank, last - r_main)]
    B = svd.u[..., torch.tensor(order, device=svd.u.device)].to(svd.dtype)
    return Factors(B.new_zeros(*B.shape[:-2], rank, svd.vt.shape[-1]), B, None)


def orthogonal_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Random factors, none of them zero, whose product is zero: B A = 0 up to round-off.

    With a random orthogonal Q (r, r) and Gaussian X (out, r / 2) and Y (in, r / 2):
    B = X Q_even / 10 and A = (Y Q_odd / 10)', where Q_odd is every second row of Q from the first
    on. This is ``init_lora_weights="orthogonal"`` of the package peft, after the article
    "Rethinking LoRA initialisation" on datta0.github.io; there is no paper. Main and sub are
    drawn independently.

    Deviation: peft refuses an odd r; here A gets one row of Q more than B. With r = 1 B is 0.
    """
    sides = [_orthogonal(weight, rank) for rank in (r_main, r_sub)]
    A, B = (torch.cat(factors, dim=dim) for factors, dim in zip(zip(*sides), (-2, -1)))
    return Factors(A, B, None)


INITIALISERS: dict[str, Initialiser] = {
    "rrqr": Initialiser(rrqr_factors, one_hot=True),
    "svd": Initialiser(svd_factors, thin_svd),
    "kaiming": Initialiser(kaiming_factors, random=True, zero_product=True),
    "pissa": Initialiser(pissa_factors, thin_svd),
    "olora": Initialiser(olora_factors),
    "mica": Initialiser(mica_factors, thin_svd, zero_product=True, frozen_B=True),
    "orthogonal": Initialiser(orthogonal_factors, random=True, zero_product=True),
}


def _triplets(svd: ThinSvd, order: list[int], scaling: float) -> Factors:
    """B = U sqrt(S / s) and A = sqrt(S / s) V' of the singular triplets ``order``."""
    index = torch.tensor(order, dtype=torch.long, device=svd.s.device)
    root = (svd.s[..., index] / scaling).sqrt()
    A, B = root[..., None] * svd.vt[..., index, :], svd.u[..., index] * root[..., None, :]
    return Factors(A.to(svd.dtype), B.to(svd.dtype), None)


def _orthogonal(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    *stack, out_features, in_features = weight.shape
    dtype = factor_dtype(weight)

    def gaussian(*shape: int) -> Tensor:
        return weight.new_empty(*stack, *shape, dtype=dtype).normal_()

    q, _ = torch.linalg.qr(gaussian(rank, rank))
    odd, even = q[..., 0::2, :], q[..., 1::2, :]
    A = (gaussian(in_features, odd.shape[-2]) @ odd).mT / 10.0
    return A, gaussian(out_features, even.shape[-2]) @ even / 10.0
