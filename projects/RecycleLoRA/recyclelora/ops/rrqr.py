"""Rank-revealing QR: which columns of a weight matter, in which order, and their directions."""

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

NO_DERIVATIVE = (
    "rrqr has no derivative (its pivots jump); call it on weight.detach() to use its result as a "
    "constant"
)

# Two threads on one such matrix are slower than one, and far slower on a busy machine (they spin).
_LAPACK = ThreadpoolController().select(internal_api="openblas")


class RRQR(NamedTuple):
    """What :func:`rrqr` returns; shapes are given there."""

    perm: Tensor
    q_major: Tensor
    q_minor: Tensor
    r_diag: Tensor


def rrqr(weight: Tensor, n_major: int, n_minor: int) -> RRQR:
    r"""QR with greedy column pivoting, ``weight[:, perm] = Q R`` (paper, eqs. 2 to 5).

    Step i takes the column that has the largest norm after projection onto the orthogonal
    complement of the columns taken before (eq. 3). Works on CPU and CUDA tensors, under
    ``torch.compile`` and on fake and meta tensors (shapes only).

    Parameters
    ----------
    weight : Tensor, (..., d, k), float32 or float64
        Any shape: tall, wide, rank-deficient, zero, empty. The decomposition runs in float64.
    n_major, n_minor : int
        How many columns of Q to return from its start and from its end, each 0..min(d, k).
        Together they may exceed min(d, k): then they overlap.

    Returns
    -------
    perm : Tensor, (..., k), int64
        The first min(d, k) entries are the pivots in greedy order, the rest the other columns in
        ascending order. Where columns tie, the lowest index comes first; residual norms that
        differ by less than float64 can resolve are a tie, so beyond the numerical rank the
        pivots ascend.
    q_major : Tensor, (..., d, n_major), weight's dtype
        The first columns of the economy Q: orthonormal, also where weight is rank-deficient.
    q_minor : Tensor, (..., d, n_minor), weight's dtype
        Its last columns, in Q's order.
    r_diag : Tensor, (..., min(d, k)), weight's dtype
        Diagonal of R, never negative, which fixes the signs of Q: q_i points the way of the
        orthogonal component of column perm[i]. It never ascends.

    Raises
    ------
    TypeError
        If weight is not a tensor or a count not an int.
    ValueError
        If weight has fewer than two dimensions, another dtype, NaN or Inf; if a count is out of
        range.
    NotImplementedError
        In ``backward()``, and for a dual tensor of forward-mode differentiation: there is no
        derivative (pivots jump).

    Examples
    --------
    >>> weight = torch.tensor([[0.0, 3.0, 4.0], [1.0, 0.0, 0.0]])
    >>> perm, q_major, q_minor, r_diag = rrqr(weight, n_major=1, n_minor=1)
    >>> perm.tolist(), r_diag.tolist()
    ([2, 0, 1], [4.0, 1.0])
    >>> q_minor.T.tolist()
    [[0.0, 1.0]]
    """
    if not isinstance(weight, Tensor):
        raise TypeError(f"rrqr: weight must be a torch.Tensor, got {type(weight).__name__}")
    for name, count in (("n_major", n_major), ("n_minor", n_minor)):
        if isinstance(count, bool) or not isinstance(count, int | torch.SymInt):
            raise TypeError(f"rrqr: {name} must be an int, got {count!r}")
    if unpack_dual(weight).tangent is not None:  # PyTorch would drop it: a derivative of zero
        raise NotImplementedError(NO_DERIVATIVE)
    return RRQR(*torch.ops.recyclelora.rrqr(weight, n_major, n_minor))


# The schema stands here as long as Python has the only kernel; a compiled one takes it over as is.
torch.library.define(
    "recyclelora::rrqr",
    "(Tensor weight, SymInt n_major, SymInt n_minor)"
    " -> (Tensor perm, Tensor q_major, Tensor q_minor, Tensor r_diag)",
)


@torch.library.impl("recyclelora::rrqr", "CompositeExplicitAutograd")
def _kernel(weight: Tensor, n_major: int, n_minor: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Every device: SciPy on the CPU, the result back on weight's device."""
    _check(weight, n_major, n_minor)
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


@torch.library.register_fake("recyclelora::rrqr")
def _shapes(weight: Tensor, n_major: int, n_minor: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(weight, n_major, n_minor)
    *batch, d, k = weight.shape
    return (
        weight.new_empty((*batch, k), dtype=torch.int64),
        weight.new_empty((*batch, d, n_major)),
        weight.new_empty((*batch, d, n_minor)),
        weight.new_empty((*batch, min(d, k))),
    )


def _no_derivative(ctx: object, *grads: Tensor) -> None:
    raise NotImplementedError(NO_DERIVATIVE)


torch.library.register_autograd("recyclelora::rrqr", _no_derivative)


def _check(weight: Tensor, n_major: int, n_minor: int) -> None:
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
