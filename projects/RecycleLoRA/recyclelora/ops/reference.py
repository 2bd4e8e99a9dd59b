"""Reference implementations in SciPy and PyTorch, also used without compiled operators."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from threadpoolctl import ThreadpoolController
from torch import Tensor

# Two threads on one such matrix are slower than one, especially on a busy machine, where they spin.
_LAPACK = ThreadpoolController().select(internal_api="openblas")


def rrqr(weight: Tensor, n_major: int, n_minor: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute :func:`recyclelora.rrqr` with SciPy, one matrix after the other.

    Parameters
    ----------
    weight : Tensor, (..., d, k)
        The matrices, on any device.
    n_major, n_minor : int
        The numbers of columns of Q.

    Returns
    -------
    perm, q_major, q_minor, r_diag : Tensor
        The result of :func:`recyclelora.rrqr`.
    """
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
    """Raise an error if the arguments of :func:`recyclelora.rrqr` are invalid.

    Parameters
    ----------
    weight : Tensor
        The matrices.
    n_major, n_minor : int
        The numbers of columns of Q.

    Raises
    ------
    ValueError
        If an argument is invalid.
    """
    if weight.dtype not in (torch.float32, torch.float64):
        conversion = "convert it first, as in rrqr(weight.float(), ...)"
        if weight.dtype.is_complex:
            conversion = "pass a real matrix, as in rrqr(weight.real, ...)"
        elif weight.is_quantized:
            conversion = "dequantize it first, as in rrqr(weight.dequantize(), ...)"
        raise ValueError(
            f"rrqr: weight must be float32 or float64, got {weight.dtype}; {conversion}"
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
    """Return pivots (k,), Q (d, m) and diag R (m,) >= 0 of one finite float64 matrix (d, k)."""
    d, k = matrix.shape
    m = min(d, k)
    if m == 0:
        return np.arange(k), np.empty((d, 0)), np.empty(0)
    # Powers of two make the scaling exact. Squares of huge and tiny values stay in range.
    exponents = np.frexp(np.abs(matrix).max(axis=0))[1]
    exponents[~matrix.any(axis=0)] = exponents.min()
    scaled = np.ldexp(matrix, -exponents)
    # Columns that are too small compared with the largest one become zero; R corrects their order.
    to_largest = np.ldexp(matrix, -exponents.max())
    perm = scipy.linalg.qr(to_largest, mode="r", pivoting=True, check_finite=False)[-1]
    perm = perm.astype(np.int64)
    q, r = scipy.linalg.qr(scaled[:, perm], mode="economic", check_finite=False)
    precision = 4 * max(d, k) * np.finfo(np.float64).eps
    pivots = _greedy_pivots(r, exponents[perm], perm, precision)
    if not np.array_equal(pivots, perm[:m]):
        q, r = scipy.linalg.qr(scaled[:, pivots], mode="economic", check_finite=False)
    diagonal = r.diagonal()
    others = np.setdiff1d(np.arange(k), pivots)
    q = q * np.where(diagonal < 0, -1.0, 1.0)
    with np.errstate(over="ignore"):
        diagonal = np.ldexp(np.abs(diagonal), exponents[pivots])
    # Among tied columns, rounding may place a larger value second, by no more than the noise.
    return np.concatenate([pivots, others]), q, np.minimum.accumulate(diagonal)


def _greedy_pivots(
    r: np.ndarray, exponents: np.ndarray, perm: np.ndarray, precision: float
) -> np.ndarray:
    """Return the pivots (m,) by eq. 3, from R (m, k) of W's columns in the order perm (k,).

    Column j of R belongs to a column of W times ``2 ** -exponents[j]``. The order perm is LAPACK's
    (dgeqp3). LAPACK does not always choose the lowest index among ties, and its updated norms may
    be wrong by 1e-8. The residual norm of column i before step j is ||R[j:, i]||. These norms show
    the first wrong step, from which on the greedy rule is computed directly. This is slower but
    rarely necessary.
    """
    m, k = r.shape
    norms = np.sqrt(np.cumsum(np.square(r[::-1]), axis=0)[::-1])
    # Householder transformations leave an error in each column that is proportional to its norm.
    noise = precision * norms[0]
    norms[np.tri(m, k, -1, dtype=bool)] = -np.inf
    tied = _ties(norms, noise, exponents)
    wrong = np.flatnonzero(np.where(tied, perm, k).min(axis=1) != perm[:m])
    if wrong.size == 0:
        return perm[:m]
    first = wrong[0]
    order = first + np.argsort(perm[first:])
    rest = _follow_greedy_rule(r[first:, order], noise[order], exponents[order])
    return np.concatenate([perm[:first], perm[order][rest]])


def _ties(norms: np.ndarray, noise: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Return which norms (..., k) tie with the largest; without a norm above the noise, all do.

    A norm of -inf never ties. Norms and noise are those of W's columns times ``2 ** -exponents``.
    """
    least = norms - noise
    magnitudes = np.where(least > 0, np.frexp(least)[1] + exponents, -(2**15))
    shift = exponents - magnitudes.max(axis=-1, keepdims=True)  # the largest becomes 0.5 to 1
    with np.errstate(over="ignore"):
        most = np.ldexp(norms + noise, shift)
        return np.where(least > 0, np.ldexp(least, shift), 0).max(-1, keepdims=True) <= most


def _follow_greedy_rule(
    residual: np.ndarray, noise: np.ndarray, exponents: np.ndarray
) -> np.ndarray:
    """Return the pivots of residual (m, k), with one rank-one update per step and lowest ties."""
    residual = residual.copy()
    m, k = residual.shape
    chosen: list[int] = []
    for _ in range(m):
        norms = np.sqrt(np.einsum("ij,ij->j", residual, residual))
        norms[chosen] = -np.inf
        if (norms - noise).max() <= 0:  # only rounding errors are left, so all tie
            return np.concatenate([np.array(chosen, int), np.setdiff1d(np.arange(k), chosen)])[:m]
        pivot = int(np.argmax(_ties(norms, noise, exponents)))
        if norms[pivot] > 0:  # the norm may be 0 if a column ties with smaller ones
            direction = residual[:, pivot] / norms[pivot]
            residual -= np.outer(direction, direction @ residual)
        chosen.append(pivot)
    return np.array(chosen, int)


def dual_lora_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A_main: Tensor,
    B_main: Tensor,
    A_sub: Tensor,
    B_sub: Tensor,
    scaling: float,
    columns: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the operator of :func:`recyclelora.ops.dual_lora_linear` by its formula.

    The computation uses the dtype of x.

    Parameters
    ----------
    x, weight, bias, A_main, B_main, A_sub, B_sub, scaling, columns
        The arguments of the operator.

    Returns
    -------
    out : Tensor, (..., out)
        The output.
    kept : Tensor
        The part of x that the backward pass needs: ``scaling x A'`` (rows, r), or
        ``x[..., columns]`` (rows, len(columns)).
    """
    check_dual_lora_linear(x, weight, bias, A_main, B_main, A_sub, B_sub, columns)
    A, B = joined(A_main, B_main, A_sub, B_sub)
    rows = x.reshape(-1, x.shape[-1])
    scaled_A = (scaling * A).to(x.dtype)
    kept = rows @ scaled_A.T if columns is None else rows.index_select(1, columns)
    hidden = kept if columns is None else kept @ scaled_A.T
    out = F.linear(rows, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    out = out + hidden @ B.to(x.dtype).T
    return out.reshape(*x.shape[:-1], len(weight)), kept


def joined(A_main: Tensor, B_main: Tensor, A_sub: Tensor, B_sub: Tensor) -> tuple[Tensor, Tensor]:
    """Join the factors of both adapters: the r_main components come before the r_sub ones.

    Parameters
    ----------
    A_main, B_main, A_sub, B_sub : Tensor
        The factors.

    Returns
    -------
    A : Tensor, (r, in) or (r, len(columns))
        The joined first factors.
    B : Tensor, (out, r)
        The joined second factors.
    """
    return torch.cat([A_main, A_sub]), torch.cat([B_main, B_sub], dim=1)


def dual_lora_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    kept: Tensor | None,
    weight: Tensor,
    A: Tensor,
    B: Tensor,
    scaling: float,
    columns: Tensor | None,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, bias and the joined A and B by differentiable formulas.

    Parameters
    ----------
    grad : Tensor
        The gradient of the output.
    x, kept : Tensor or None
        The input and the saved part of it. An unused one may be None.
    weight, A, B, scaling, columns
        The arguments of the operator, with joined factors.
    wanted : sequence of bool
        Whether each gradient is needed.

    Returns
    -------
    tuple of Tensor
        The gradients. Those that are not needed are empty tensors.
    """
    wants_x, wants_bias, wants_A, wants_B = wanted
    grad_x, grad_bias, grad_A, grad_B = (like.new_empty(0) for like in (grad, weight, A, B))
    dtype, rows = grad.dtype, grad.reshape(-1, grad.shape[-1])
    if wants_x or wants_A:
        grad_hidden = rows @ (scaling * B).to(dtype)
    if wants_x:
        grad_x, update = rows @ weight.to(dtype), grad_hidden @ A.to(dtype)
        grad_x = grad_x + update if columns is None else grad_x.index_add(1, columns, update)
        grad_x = grad_x.reshape(*grad.shape[:-1], weight.shape[1])
    if wants_bias:
        grad_bias = rows.sum(0, dtype=weight.dtype)
    if wants_A:
        inputs = x.reshape(-1, x.shape[-1]) if columns is None else kept
        grad_A = (grad_hidden.T @ inputs).to(A.dtype)
    if wants_B:
        hidden = kept if columns is None else kept @ (scaling * A).to(dtype).T
        grad_B = (rows.T @ hidden).to(B.dtype)
    return grad_x, grad_bias, grad_A, grad_B


def check_dual_lora_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A_main: Tensor,
    B_main: Tensor,
    A_sub: Tensor,
    B_sub: Tensor,
    columns: Tensor | None,
) -> None:
    """Raise an error if the arguments of the operator are invalid.

    Parameters
    ----------
    x, weight, bias, A_main, B_main, A_sub, B_sub, columns
        The arguments of the operator.

    Raises
    ------
    ValueError
        If a shape or dtype is invalid.
    """

    def require(is_right: bool, name: str, expected: str, tensor: Tensor) -> None:
        if not is_right:
            raise ValueError(
                f"dual_lora_linear: {name} must be {expected}, got shape {tuple(tensor.shape)}"
            )

    require(weight.dim() == 2 and weight.numel() > 0, "weight", "(out, in)", weight)
    out_features, in_features = weight.shape
    if columns is not None and (columns.dim() != 1 or columns.dtype != torch.int64):
        raise ValueError(
            "dual_lora_linear: columns must be (n,) and int64, got shape "
            f"{tuple(columns.shape)} and {columns.dtype}"
        )
    inputs = in_features if columns is None else columns.shape[0]
    fits = x.dim() >= 1 and x.shape[-1] == in_features
    require(fits, "x", f"(..., {in_features})", x)
    if bias is not None:
        require(bias.shape == (out_features,), "bias", f"({out_features},)", bias)
    for name, A, B in (("main", A_main, B_main), ("sub", A_sub, B_sub)):
        require(A.dim() == 2 and A.shape[1] == inputs, f"A_{name}", f"(r, {inputs})", A)
        of_B = (out_features, A.shape[0])
        require(B.shape == of_B, f"B_{name}", str(of_B), B)
    if A_main.shape[0] + A_sub.shape[0] == 0:
        raise ValueError("dual_lora_linear: A_main and A_sub must have at least one row together")
    dtypes = [tensor.dtype for tensor in (x, weight, A_main, B_main, A_sub, B_sub)]
    if not all(dtype.is_floating_point for dtype in dtypes) or (
        torch.float64 in dtypes and len({*dtypes}) > 1
    ):
        raise ValueError(
            "dual_lora_linear: x, weight and the factors must be floating and all or none of them "
            f"float64, got {', '.join(str(dtype) for dtype in dtypes)}"
        )


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Compute :func:`recyclelora.ops.ms_deform_attn` by `grid_sample`.

    The axis of the points precedes that of the queries. The sum over points then runs over
    contiguous queries, and no tensor of all levels is stacked. Stacking the levels, or gathering
    the rows of the corners (index_select, embedding_bag), takes at least a quarter more time.

    Parameters
    ----------
    value, spatial_shapes, sampling_locations, attention_weights
        The arguments of that function.

    Returns
    -------
    Tensor
        The output of that function.
    """
    n, s, heads, d = value.shape
    q, levels, points = sampling_locations.shape[1], *sampling_locations.shape[3:5]
    grids = (2 * sampling_locations).sub_(1).permute(3, 0, 2, 4, 1, 5)
    grids = grids.reshape(levels, n * heads, points, q, 2)
    weights = attention_weights.permute(3, 0, 2, 4, 1).reshape(levels, n * heads, 1, points, q)
    maps = value.permute(0, 2, 3, 1).reshape(n * heads, d, s)
    maps = maps.split([h * w for h, w in spatial_shapes], dim=-1)
    out = value.new_zeros(())
    for (h, w), level, grid, weight in zip(spatial_shapes, maps, grids, weights, strict=True):
        sampled = F.grid_sample(level.reshape(n * heads, d, h, w), grid, align_corners=False)
        out = out + (sampled * weight).sum(dim=2)
    return out.view(n, heads * d, q).transpose(1, 2)
