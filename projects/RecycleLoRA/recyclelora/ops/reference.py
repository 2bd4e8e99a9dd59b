"""The operators in SciPy and plain PyTorch: the oracle of the compiled ones, and their stand-in."""

import math

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

# Two threads on one such matrix are slower than one, and far slower on a busy machine (they spin).
_LAPACK = ThreadpoolController().select(internal_api="openblas")


def rrqr(weight: Tensor, n_major: int, n_minor: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`recyclelora.rrqr` of a weight on any device, by SciPy, one matrix after the other."""
    check_rrqr(weight, n_major, n_minor)
    if not torch.isfinite(weight).all():
        raise ValueError("rrqr: weight holds NaN or Inf; expected finite values only")
    *batch, d, k = weight.shape
    matrices = weight.detach().cpu().double().numpy().reshape(math.prod(batch), d, k)
    m = min(d, k)
    perm = np.empty((len(matrices), k), np.int64)
    q = np.empty((len(matrices), d, m))
    r_diag = np.empty((len(matrices), m))
    with _LAPACK.limit(limits=1):
        for i, matrix in enumerate(matrices):
            perm[i], q[i], r_diag[i] = _decompose(matrix)

    def tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
        shaped = torch.tensor(array).reshape(*batch, *array.shape[1:])
        return shaped.to(device=weight.device, dtype=dtype)

    return (
        tensor(perm, torch.int64),
        tensor(q[:, :, :n_major], weight.dtype),
        tensor(q[:, :, m - n_minor :], weight.dtype),
        tensor(r_diag, weight.dtype),
    )


def check_rrqr(weight: Tensor, n_major: int, n_minor: int) -> None:
    """Raise ValueError, in one sentence, where :func:`recyclelora.rrqr` is not defined."""
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"rrqr: weight must be float32 or float64, got {weight.dtype}; convert it first, "
            "as in rrqr(weight.float(), ...)"
        )
    if weight.dim() < 2:
        raise ValueError(f"rrqr: weight must be (..., d, k), got shape {tuple(weight.shape)}")
    limit = min(weight.shape[-2:])
    for name, count in (("n_major", n_major), ("n_minor", n_minor)):
        if not 0 <= count <= limit:
            raise ValueError(
                f"rrqr: {name} must be 0..min(d, k) = 0..{limit} for a weight of shape "
                f"{tuple(weight.shape)}, got {count}"
            )


def _decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pivots (k,), Q (d, m) and diag R (m,) >= 0 of one finite float64 matrix (d, k)."""
    d, k = matrix.shape
    m = min(d, k)
    if m == 0:
        return np.arange(k), np.empty((d, 0)), np.empty(0)
    # A power of two, so exact: squares of huge and tiny values neither overflow nor vanish.
    exponent = np.frexp(np.abs(matrix).max())[1]
    matrix = np.ldexp(matrix, -exponent)
    q, r, perm = scipy.linalg.qr(matrix, mode="economic", pivoting=True, check_finite=False)
    pivots = _greedy_pivots(r, perm.astype(np.int64), 4 * max(d, k) * np.finfo(np.float64).eps)
    if not np.array_equal(pivots, perm[:m]):
        q, r = scipy.linalg.qr(matrix[:, pivots], mode="economic", check_finite=False)
    diagonal = r.diagonal()
    others = np.setdiff1d(np.arange(k), pivots)
    q = q * np.where(diagonal < 0, -1.0, 1.0)
    # Among columns that tie, rounding may put a larger value second: not by more than the noise.
    diagonal = np.minimum.accumulate(np.abs(diagonal))
    return np.concatenate([pivots, others]), q, np.ldexp(diagonal, exponent)


def _greedy_pivots(r: np.ndarray, perm: np.ndarray, precision: float) -> np.ndarray:
    """The pivots (m,) that eq. 3 asks for, from LAPACK's R (m, k) and its perm (k,).

    LAPACK (dgeqp3) swaps columns, so among equals it need not take the lowest index, and it
    downdates norms, so it may miss the largest by 1e-8. R tells where: column i's residual norm
    before step j is ||R[j:, i]||. From the first wrong step on the greedy rule is followed to the
    letter, which costs more, but real weights hardly ever need it.
    """
    m, k = r.shape
    norms = np.sqrt(np.cumsum(np.square(r[::-1]), axis=0)[::-1])
    # Householder transformations leave in each column an error in proportion to its own norm.
    noise = precision * norms[0]
    norms[np.tri(m, k, -1, dtype=bool)] = -np.inf
    tied = norms + noise >= (norms - noise).max(axis=1, keepdims=True)
    wrong = np.flatnonzero(np.where(tied, perm, k).min(axis=1) != perm[:m])
    if wrong.size == 0:
        return perm[:m]
    first = wrong[0]
    order = first + np.argsort(perm[first:])
    rest = _follow_greedy_rule(r[first:, order], noise[order])
    return np.concatenate([perm[:first], perm[order][rest]])


def _follow_greedy_rule(residual: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Pivots of residual (m, k), one rank-one update a step; ties go to the lowest index."""
    residual = residual.copy()
    m, k = residual.shape
    chosen: list[int] = []
    for _ in range(m):
        norms = np.sqrt(np.einsum("ij,ij->j", residual, residual))
        norms[chosen] = -np.inf
        if (norms - noise).max() <= 0:  # nothing but rounding is left: all tie
            return np.concatenate([np.array(chosen, int), np.setdiff1d(np.arange(k), chosen)])[:m]
        pivot = int(np.argmax(norms + noise >= (norms - noise).max()))
        direction = residual[:, pivot] / norms[pivot]
        residual -= np.outer(direction, direction @ residual)
        chosen.append(pivot)
    return np.array(chosen, int)
