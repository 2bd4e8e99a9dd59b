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

    The factors of a stack of weights have one more dimension in front.

    Attributes
    ----------
    A : Tensor or None
        Rows (r_main + r_sub, in), or None if they are one-hot.
    B : Tensor
        Columns (out, r_main + r_sub).
    columns : Tensor or None
        If the rows of A are one-hot, row i is 1 at ``columns[i]``: (r_main + r_sub,), int64.
        Otherwise None.
    """

    A: Tensor | None
    B: Tensor
    columns: Tensor | None


@dataclass(frozen=True)
class Initialiser:
    """An initialiser: a function, and properties of the factors that it returns.

    Attributes
    ----------
    function : Callable
        ``function(weight (..., out, in), r_main, r_sub, scaling) -> Factors``. At least one of the
        ranks is above 0.
    decomposition : Callable, optional
        Decomposes the weight; ``function`` then receives the result instead of the weight. If the
        initialisers of main and sub have the same decomposition, it is computed once.
    one_hot : bool
        Whether the rows of A are one-hot, so that ``Factors.columns`` defines A.
    random : bool
        Whether the factors are drawn from torch's global generator.
    zero_product : bool
        Whether B A = 0, so that W_res = W0.
    frozen_B : bool
        Whether only A is trained.
    """

    function: Callable[[Any, int, int, float], Factors]
    decomposition: Callable[[Tensor], Any] | None = None
    one_hot: bool = False
    random: bool = False
    zero_product: bool = False
    frozen_B: bool = False

    def __call__(self, weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
        """Return the factors of a weight (..., out, in)."""
        return self.function(self.decomposed(weight), r_main, r_sub, scaling)

    def decomposed(self, weight: Tensor) -> Any:
        """Return the argument of ``function``.

        Parameters
        ----------
        weight : Tensor
            A weight (..., out, in).

        Returns
        -------
        object
            The decomposition of the weight, or the weight itself.
        """
        return weight if self.decomposition is None else self.decomposition(weight)


class ThinSvd(NamedTuple):
    """The thin SVD of a weight in float64.

    Attributes
    ----------
    u : Tensor
        Left singular vectors (..., out, m), where m = min(out, in).
    s : Tensor
        Singular values (..., m) in descending order.
    vt : Tensor
        Transposed right singular vectors (..., m, in).
    dtype : torch.dtype
        The dtype of factors that are made from the SVD.
    """

    u: Tensor
    s: Tensor
    vt: Tensor
    dtype: torch.dtype


def factor_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype of the factors of a weight.

    Parameters
    ----------
    weight : Tensor
        The weight.

    Returns
    -------
    torch.dtype
        float32 if the weight has half precision, otherwise the dtype of the weight.
    """
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def one_hot_rows(columns: Tensor, in_features: int, like: Tensor) -> Tensor:
    """Return rows that are 1 in one column each and 0 elsewhere.

    Parameters
    ----------
    columns : Tensor
        The column of each row, (..., r), int64.
    in_features : int
        The number of columns.
    like : Tensor
        A tensor with the dtype and device of the result.

    Returns
    -------
    Tensor
        The rows (..., r, in_features).
    """
    rows = like.new_zeros(*columns.shape, in_features)
    return rows.scatter(-1, columns[..., None], 1.0)


def thin_svd(weight: Tensor) -> ThinSvd:
    """Compute the thin SVD of a weight in float64.

    Parameters
    ----------
    weight : Tensor
        A weight (..., out, in).

    Returns
    -------
    ThinSvd
        The SVD.
    """
    return ThinSvd(*torch.linalg.svd(weight.double(), full_matrices=False), factor_dtype(weight))


def rrqr_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Return minor directions for main and major directions for sub (paper, eqs. 5 to 7).

    With ``weight[:, P] = Q R`` and m = min(out, in), main gets the last r_main columns of Q and the
    pivots P[m - r_main + i]. Sub gets the first r_sub columns of Q and the pivots P[i].

    Deviation: eq. 7 counts main's pivots back from in, not from m. For a wide weight those columns
    have no direction in Q; the published code and this function count from m.

    Parameters
    ----------
    weight : Tensor
        A weight (..., out, in).
    r_main, r_sub : int
        Ranks.
    scaling : float
        Not used; the factors do not depend on it.

    Returns
    -------
    Factors
        One-hot factors.
    """
    perm, q_major, q_minor, _ = rrqr(weight.to(factor_dtype(weight)), r_sub, r_main)
    last = min(weight.shape[-2:])
    columns = torch.cat([perm[..., last - r_main : last], perm[..., :r_sub]], dim=-1)
    return Factors(None, torch.cat([q_minor, q_major], dim=-1), columns)


def svd_factors(svd: ThinSvd, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Return the r_main smallest singular triplets for main, the r_sub largest for sub.

    Main is MiLoRA (Wang et al., 2024, arXiv:2406.09044, section 3). Sub is PiSSA, see
    :func:`pissa_factors`.

    Parameters
    ----------
    svd : ThinSvd
        The SVD of the weight.
    r_main, r_sub : int
        Ranks.
    scaling : float
        The factor s before B A.

    Returns
    -------
    Factors
        The factors.
    """
    last = svd.s.shape[-1]
    return _triplets(svd, [*range(last - r_main, last), *range(r_sub)], scaling)


def kaiming_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Return random A and zero B, as LoRA is implemented (Hu et al., 2021, arXiv:2106.09685).

    A is uniform with the bound of ``nn.Linear``, 1 / sqrt(in).

    Deviation: the paper (section 4.1) draws A from a Gaussian. Its code and this function do not.

    Parameters
    ----------
    weight : Tensor
        A weight (..., out, in).
    r_main, r_sub : int
        Ranks.
    scaling : float
        Not used; the factors do not depend on it.

    Returns
    -------
    Factors
        The factors.
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
    """Return the principal singular triplets: PiSSA (Meng et al., 2024, arXiv:2404.02948).

    B = U sqrt(S / s) and A = sqrt(S / s) V' of the r largest singular values. The paper's A is B
    here, and its s is 1. As in the package peft, S is divided by s, so that s B A is exactly the
    principal part of the weight.

    Parameters
    ----------
    svd : ThinSvd
        The SVD of the weight.
    r_main, r_sub : int
        Ranks.
    scaling : float
        The factor s before B A.

    Returns
    -------
    Factors
        The factors.
    """
    return _triplets(svd, list(range(r_main + r_sub)), scaling)


def olora_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Return a QR decomposition of the weight: OLoRA (Büyükakyüz, 2024, arXiv:2406.01775).

    Parameters
    ----------
    weight : Tensor
        A weight (..., out, in).
    r_main, r_sub : int
        Ranks.
    scaling : float
        Not used; the factors do not depend on it.

    Returns
    -------
    Factors
        The factors.
    """
    q, r = torch.linalg.qr(weight.to(factor_dtype(weight)))
    rank = r_main + r_sub
    return Factors(r[..., :rank, :], q[..., :rank], None)


def mica_factors(svd: ThinSvd, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Return minor left singular vectors: MiCA (Rüdiger and Raschka, 2026, arXiv:2604.01694).

    B = U[:, -r:] stays frozen. A starts at 0 and is trained, so the weight changes only in the span
    of its last left singular vectors. As in the package peft, U is that of the thin SVD.

    Parameters
    ----------
    svd : ThinSvd
        The SVD of the weight.
    r_main, r_sub : int
        Ranks.
    scaling : float
        Not used; the factors do not depend on it.

    Returns
    -------
    Factors
        The factors.
    """
    last, rank = svd.s.shape[-1], r_main + r_sub
    order = [*range(last - r_main, last), *range(last - rank, last - r_main)]
    B = svd.u[..., torch.tensor(order, device=svd.u.device)].to(svd.dtype)
    return Factors(B.new_zeros(*B.shape[:-2], rank, svd.vt.shape[-1]), B, None)


def orthogonal_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Return random nonzero factors whose product B A is zero up to round-off.

    With a random orthogonal Q (r, r) and Gaussian X (out, r / 2) and Y (in, r / 2), the factors are
    B = X Q_even / 10 and A = (Y Q_odd / 10)'. Q_odd is every second row of Q, starting with the
    first. This is ``init_lora_weights="orthogonal"`` of the package peft, after the article
    "Rethinking LoRA initialisation" on datta0.github.io; there is no paper. Main and sub are drawn
    independently.

    Deviation: peft rejects an odd r. Here, A gets one row of Q more than B, so with r = 1, B is 0.

    Parameters
    ----------
    weight : Tensor
        A weight (..., out, in).
    r_main, r_sub : int
        Ranks.
    scaling : float
        Not used; the factors do not depend on it.

    Returns
    -------
    Factors
        The factors.
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
    """Return U sqrt(S / s) as B and sqrt(S / s) V' as A for the singular triplets ``order``."""
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
