"""Rank-revealing QR: which columns of a weight matter, in which order, and their directions."""

import numbers
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from . import reference
from .library import define_operators, reference_kernel

NO_DERIVATIVE = (
    "rrqr has no derivative (its pivots jump); call it on weight.detach() to use its result as a "
    "constant"
)


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
        Any shape: tall, wide, rank-deficient, zero, empty. The decomposition runs in float64. All
        finite values are allowed: columns are scaled by powers of two, so that squares of huge and
        tiny values neither overflow nor underflow.
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

    On the CPU the bits of a result depend on the matrix alone, not on the batch or the number of
    threads. On a GPU the pivots do, and the other results agree to rounding.

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
        if isinstance(count, bool) or not isinstance(count, numbers.Integral | torch.SymInt):
            raise TypeError(f"rrqr: {name} must be an int, got {count!r}")
        if (
            isinstance(count, numbers.Integral) and abs(count) >= 2**63
        ):  # more than an operator takes
            raise ValueError(f"rrqr: {name} must be 0..min(d, k), got {count}")
    n_major, n_minor = (n if isinstance(n, torch.SymInt) else int(n) for n in (n_major, n_minor))
    if weight.is_nested:
        raise ValueError(
            "rrqr: weight must be one dense tensor, got a nested one; call rrqr on each tensor of "
            "weight.unbind()"
        )
    if weight.layout != torch.strided:
        raise ValueError(f"rrqr: weight must be dense, got {weight.layout}; call to_dense() first")
    if unpack_dual(weight).tangent is not None:  # PyTorch would drop it: a derivative of zero
        raise NotImplementedError(NO_DERIVATIVE)
    return RRQR(*torch.ops.recyclelora.rrqr(weight, n_major, n_minor))


define_operators()
# The kernel of every device that has no compiled one.
_kernel = reference_kernel(reference.rrqr)
torch.library.impl("recyclelora::rrqr", "CompositeExplicitAutograd", _kernel)


@torch.library.register_fake("recyclelora::rrqr")
def _shapes(weight: Tensor, n_major: int, n_minor: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    reference.check_rrqr(weight, n_major, n_minor)
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
