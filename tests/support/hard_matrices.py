"""Random matrices whose scales differ by more than squares in float64 can represent."""

import numpy as np
import torch

LARGEST = np.finfo(np.float64).max
SUBNORMAL = 5e-324


Generator = np.random.Generator


def powers(rng: Generator, low: float, high: float, shape: int | tuple[int, ...]) -> np.ndarray:
    """Return random powers of ten with uniform exponents."""
    return 10.0 ** rng.uniform(low, high, shape)


# Each function changes a matrix of standard normal entries, and may draw from rng.
KINDS = {
    "columns": lambda w, rng: w * powers(rng, -300, 300, w.shape[1]),
    "few_scales": lambda w, rng: w * rng.choice([1e-305, 1e-150, 1, 1e160, 1e300], w.shape[1]),
    "close_scales": lambda w, rng: w * 2.0 ** rng.integers(-2, 3, w.shape[1]) * 1e-160,
    "subnormal": lambda w, rng: np.where(
        rng.random(w.shape[1]) < 0.5,
        np.round(w * 100) * SUBNORMAL,
        w * powers(rng, -320, 0, w.shape[1]),
    ),
    "largest": lambda w, rng: (
        w / np.abs(w).max() * LARGEST * 2.0 ** -rng.integers(0, 1100, w.shape[1])
    ),
    "zero_columns": lambda w, rng: KINDS["columns"](w, rng) * (rng.random(w.shape[1]) < 0.7),
    "zero_entries": lambda w, rng: KINDS["columns"](w, rng) * (rng.random(w.shape) < 0.7),
    "entries": lambda w, rng: w * powers(rng, -300, 300, w.shape),
    "rows": lambda w, rng: w * powers(rng, -300, 300, (w.shape[0], 1)),
    "equal_columns": lambda w, rng: KINDS["columns"](w, rng)[
        :, rng.integers(0, w.shape[1], w.shape[1])
    ],
    "parallel_columns": lambda w, rng: KINDS["columns"](
        w[:, rng.integers(0, w.shape[1], w.shape[1])], rng
    ),
    "float32": lambda w, rng: (w * powers(rng, -44, 38, w.shape[1])).clip(-3e38, 3e38),
}


def hard_matrix(kind: str, seed: int, size: int) -> torch.Tensor:
    """Return a random matrix of this kind, with 1 to ``size`` rows and columns."""
    rng = np.random.default_rng(seed)
    matrix = KINDS[kind](rng.standard_normal(rng.integers(1, size + 1, 2)), rng)
    return torch.tensor(matrix, dtype=torch.float32 if kind == "float32" else torch.float64)


def kahan_matrix(n: int, c: float, perturbation: float) -> torch.Tensor:
    """Return Kahan's matrix (n, n), float64, with norms that decrease by the perturbation.

    All residual norms are nearly equal, and the combination of pivots that expresses a column grows
    by 1 + c in each step, and with it the effect of a rounding error.
    """
    diagonal = np.sqrt(1 - c * c) ** np.arange(n)
    kahan = diagonal[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))
    return torch.tensor(kahan * (1 - perturbation * np.arange(n)))


def with_spectrum(d: int, k: int, decades: float) -> torch.Tensor:
    """Return a random matrix, float64, with singular values from 1 to 10^-decades."""
    m = min(d, k)
    left = torch.linalg.qr(torch.randn(d, m, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(k, m, dtype=torch.float64)).Q
    return left * torch.logspace(0, -decades, m, dtype=torch.float64) @ right.T
