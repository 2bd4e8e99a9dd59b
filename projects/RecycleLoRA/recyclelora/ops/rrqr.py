"""Rank-revealing QR: the pivots of a weight in greedy order, and columns of Q."""

import numbers
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from . import reference
from .interruption import raise_kept_error
from .library import define_operators, reference_kernel

NO_DERIVATIVE = (
    "rrqr has no derivative (its pivots jump); call it on weight.detach() to use its result as a "
    "constant"
)


class RRQR(NamedTuple):
    """The result of :func:`rrqr`, which documents the shapes."""

    perm: Tensor
    q_major: Tensor
    q_minor: Tensor
    r_diag: Tensor


def rrqr(weight: Tensor, n_major: int, n_minor: int) -> RRQR:
    r"""Compute a QR with greedy column pivoting, ``weight[:, perm] = Q R`` (paper, eqs. 2 to 5).

    Step i chooses the column with the largest norm after projection onto the orthogonal complement
    of the columns chosen before (eq. 3). CPU and CUDA tensors, ``torch.compile``, and fake and meta
    tensors (shapes only) are supported.

    Parameters
    ----------
    weight : Tensor, (..., d, k), float32 or float64
        A matrix or a batch of matrices of any shape and rank, possibly empty. The decomposition is
        computed in float64. All finite values are allowed, because columns are scaled by powers of
        two so that squares neither overflow nor underflow.
    n_major, n_minor : int
        The numbers of columns of Q to return from its start and from its end, each 0..min(d, k).
        If their sum exceeds min(d, k), the returned columns overlap.

    Returns
    -------
    perm : Tensor, (..., k), int64
        The first min(d, k) entries are the pivots in greedy order, followed by the other columns in
        ascending order. Among ties, the column with the lowest index is chosen. Residual norms tie
        if they differ by less than the rounding error of float64. Beyond the numerical rank, the
        pivots are therefore in ascending order.
    q_major : Tensor, (..., d, n_major), dtype of weight
        The first columns of the economy Q. They are orthonormal even if weight is rank-deficient.
    q_minor : Tensor, (..., d, n_minor), dtype of weight
        The last columns of the economy Q, in the order of Q.
    r_diag : Tensor, (..., min(d, k)), dtype of weight
        The diagonal of R, which is nonnegative and nonincreasing. The sign fixes the signs of Q:
        the inner product of q_i and column perm[i] is nonnegative.

    Raises
    ------
    TypeError
        If weight is not a tensor, or a count is not an int.
    ValueError
        If weight has fewer than two dimensions, another dtype, NaN or Inf, or if a count is out of
        range.
    NotImplementedError
        In ``backward()`` and in forward-mode differentiation, because the pivots are not
        continuous.

    Notes
    -----
    On Ctrl-C, a decomposition on the CPU ends within about a second, and
    :func:`recyclelora.ops.rrqr_progress` reports the finished matrices of a batch. Both need the
    optional module ``recyclelora._interruption``.

    On the CPU, the result depends bitwise only on the matrix, not on the batch or the number of
    threads. On a GPU this holds for the pivots; the other results agree up to rounding.

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
        ):  # more than an operator accepts
            raise ValueError(f"rrqr: {name} must be 0..min(d, k), got {count}")
    n_major, n_minor = (n if isinstance(n, torch.SymInt) else int(n) for n in (n_major, n_minor))
    if weight.is_nested:
        raise ValueError(
            "rrqr: weight must be one dense tensor, got a nested one; call rrqr on each tensor of "
            "weight.unbind()"
        )
    if weight.layout != torch.strided:
        raise ValueError(f"rrqr: weight must be dense, got {weight.layout}; call to_dense() first")
    if unpack_dual(weight).tangent is not None:  # PyTorch would return a derivative of zero
        raise NotImplementedError(NO_DERIVATIVE)
    try:
        return RRQR(*torch.ops.recyclelora.rrqr(weight, n_major, n_minor))
    except RuntimeError:
        raise_kept_error()
        raise


define_operators()
# The kernel for devices without a compiled one.
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
