"""Initial factors B A of a weight: from its pivoted QR, its SVD, or random."""

import math
from collections.abc import Callable
from typing import NamedTuple

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


def factor_dtype(weight: Tensor) -> torch.dtype:
    """float32 for weights in half precision, else the dtype of the weight."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


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


def svd_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Singular triplets: the r_main smallest for main, the r_sub largest for sub.

    B = U sqrt(S / s) and A = sqrt(S / s) V', so that s B A is exactly that part of weight.
    """
    u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    last = min(weight.shape[-2:])
    index = torch.tensor([*range(last - r_main, last), *range(r_sub)], dtype=torch.long)
    index = index.to(weight.device)
    root = (s[..., index] / scaling).sqrt()
    A, B = root[..., None] * vt[..., index, :], u[..., index] * root[..., None, :]
    return Factors(A.to(factor_dtype(weight)), B.to(factor_dtype(weight)), None)


def kaiming_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """As LoRA: A is Kaiming-uniform (drawn from torch's global generator), B is zero."""
    *stack, out_features, in_features = weight.shape
    dtype = factor_dtype(weight)
    A = weight.new_empty(*stack, r_main + r_sub, in_features, dtype=dtype)
    for one in A.view(math.prod(stack), r_main + r_sub, in_features):
        for rows in one.split([r_main, r_sub]):
            if rows.numel():
                nn.init.kaiming_uniform_(rows, a=math.sqrt(5))
    return Factors(A, weight.new_zeros(*stack, out_features, r_main + r_sub, dtype=dtype), None)


INITIALISERS: dict[str, Callable[[Tensor, int, int, float], Factors]] = {
    "rrqr": rrqr_factors,
    "svd": svd_factors,
    "kaiming": kaiming_factors,
}
