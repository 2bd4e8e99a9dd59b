"""rrqr in 200-bit arithmetic with unbounded exponents: an oracle without over- or underflow."""

from typing import NamedTuple

import numpy as np
import torch
from mpmath import mp, mpf
from torch import Tensor

BITS = 200  # products of two doubles are exact, and 90 bits remain after elimination has lost 57


class ExactRRQR(NamedTuple):
    """The exact result of rrqr for one matrix, and the part that float64 determines."""

    perm: list[int]
    q: np.ndarray  # (d, m)
    r_diag: np.ndarray  # (m,) float64
    resolved: int  # number of first pivots that float64 must find: norms far above the noise
    precision: float  # the least residual norm of these, as a part of the column's own norm


def exact_rrqr(weight: Tensor) -> ExactRRQR:
    """Gram-Schmidt with the tie rule of rrqr, on a matrix (d, k)."""
    d, k = weight.shape
    m = min(d, k)
    with mp.workprec(BITS):
        columns = [[mpf(x) for x in column] for column in weight.double().T.tolist()]
        norms = [mp.norm(column) for column in columns]
        noise = [4 * max(d, k) * mpf(2) ** -52 * norm for norm in norms]
        perm, directions, diagonal = [], [], []
        resolved, precision = m, 1.0
        for step in range(m):
            left = [j for j in range(k) if j not in perm]
            residual = {j: mp.norm(columns[j]) for j in left}
            least = max(residual[j] - noise[j] for j in left)
            if least <= 0:
                resolved = min(resolved, step)
                break
            pivot = next(j for j in left if residual[j] + noise[j] >= least)
            if residual[pivot] < 2**10 * noise[pivot]:
                resolved = min(resolved, step)
                if residual[pivot] == 0:
                    break
            if step < resolved:
                precision = min(precision, float(residual[pivot] / norms[pivot]))
            direction = [x / residual[pivot] for x in columns[pivot]]
            for j in left:
                product = mp.fdot(direction, columns[j])
                columns[j] = [x - product * y for x, y in zip(columns[j], direction)]
            perm.append(pivot)
            directions.append([float(x) for x in direction])
            diagonal.append(to_float(residual[pivot]))
    others = [j for j in range(k) if j not in perm]
    q = np.array(directions).reshape(len(perm), d).T
    return ExactRRQR(perm + others, q, np.array(diagonal), resolved, precision)


def to_float(value: mpf) -> float:
    """Return the nearest float64, which may be infinite or subnormal."""
    mantissa, exponent = mp.frexp(value)
    with np.errstate(over="ignore", under="ignore"):
        return float(np.ldexp(float(mantissa), int(exponent)))


def assert_equals_exact(out: tuple[Tensor, ...], exact: ExactRRQR) -> None:
    """Compare rrqr(weight, m, m) with the oracle, as far as float64 determines the result."""
    perm, q_major, q_minor, r_diag = out
    n, eps = exact.resolved, torch.finfo(r_diag.dtype).eps
    assert perm.tolist()[:n] == exact.perm[:n]
    assert sorted(perm.tolist()) == list(range(len(perm)))
    assert torch.equal(q_major, q_minor)
    atol = 4 * eps + 1e-13 / exact.precision
    np.testing.assert_allclose(q_major.double().numpy()[:, :n], exact.q[:, :n], atol=atol, rtol=0)
    eye = np.eye(q_major.shape[1])
    np.testing.assert_allclose(q_major.double().T @ q_major.double(), eye, atol=16 * eps, rtol=0)
    with np.errstate(over="ignore"):
        expected = exact.r_diag[:n].astype(r_diag.numpy().dtype)
    smallest = 2 * torch.finfo(r_diag.dtype).smallest_normal * eps  # two subnormal steps
    np.testing.assert_allclose(r_diag.numpy()[:n], expected, rtol=atol, atol=smallest)
    assert (r_diag.diff() <= 0).all() or r_diag.isinf().any()
    return n
