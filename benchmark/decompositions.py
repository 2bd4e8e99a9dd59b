"""The candidates of ``benchmark.rrqr``: decompositions of weights by several libraries."""

import contextlib
import ctypes
import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

import recyclelora
from benchmark.worker import Timed, timed

R_MAIN, R_SUB = 32, 4  # the ranks of the paper
COLUMN_MAJOR = 102  # constant of LAPACKE

# Function from a stack of weights (n, d, k) to their pivots (n, k), or None if it does not pivot.
Decomposition = Callable[[Tensor], Tensor | None]


def gaussian(count: int, shape: tuple[int, int], seed: int) -> Tensor:
    """Return weights (count, d, k) with Gaussian entries of variance 1 / k."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator) / shape[1] ** 0.5


def time_one(name: str, count: int, shape: tuple[int, int], seed: int, device: str) -> Timed:
    """Time one candidate on a stack of Gaussian weights. The value is the pivots."""
    place = torch.device(device)
    controller()  # before the timing starts
    weights = gaussian(count, shape, seed)
    return timed(functools.partial(systems(place)[name], weights), place)


def systems(device: torch.device) -> dict[str, Decomposition]:
    """Return every candidate by name. On a GPU, the time includes copies to it and back."""

    def ours(weights: Tensor) -> Tensor:
        m = min(weights.shape[-2:])
        out = recyclelora.rrqr(weights.to(device), min(R_SUB, m), min(R_MAIN, m))
        perm, *_ = [tensor.cpu() for tensor in out]
        return perm

    def torch_qr(weights: Tensor) -> None:
        [tensor.cpu() for tensor in torch.linalg.qr(weights.to(device))]

    def torch_svd(weights: Tensor) -> None:
        [tensor.cpu() for tensor in torch.linalg.svd(weights.to(device), full_matrices=False)]

    single, double = np.float32, np.float64
    found: dict[str, Decomposition] = {
        "published": functools.partial(_all, scipy_pivots, dtype=single, calls=2),
        "published, one a thread": functools.partial(
            _all, scipy_pivots, dtype=single, calls=2, one_a_thread=True
        ),
        "SciPy float32": functools.partial(_all, scipy_pivots, dtype=single, one_a_thread=True),
        "SciPy float64": functools.partial(_all, scipy_pivots, dtype=double, one_a_thread=True),
    }
    if mkl_library() is not None:
        for name, dtype in (("MKL float32", single), ("MKL float64", double)):
            found[name] = functools.partial(_all, mkl_pivots, dtype=dtype, one_a_thread=True)
    return {
        **found,
        "torch.linalg.qr": torch_qr,
        "torch.linalg.svd": torch_svd,
        "rrqr": ours,
    }


def _all(
    function: Callable[..., np.ndarray],
    weights: Tensor,
    dtype: type,
    calls: int = 1,
    one_a_thread: bool = False,
) -> Tensor:
    """Return the pivots of every matrix; with ``one_a_thread``, threads share them."""
    matrices = [weight.astype(dtype, copy=False) for weight in weights.cpu().numpy()]
    threads = torch.get_num_threads() if one_a_thread else 1

    def pivots(matrix: np.ndarray) -> np.ndarray:
        for _ in range(calls):
            found = function(matrix)
        return found

    limit = controller().limit(limits=1) if one_a_thread else contextlib.nullcontext()
    with limit, ThreadPoolExecutor(threads) as pool:
        return torch.from_numpy(np.array(list(pool.map(pivots, matrices)), np.int64))


@functools.cache
def controller() -> ThreadpoolController:
    """Return the controller of all BLAS threads; finding the libraries takes milliseconds."""
    mkl_library()
    return ThreadpoolController()


def scipy_pivots(matrix: np.ndarray) -> np.ndarray:
    """Return the pivots of ``scipy.linalg.qr``, called as in the published code."""
    return scipy.linalg.qr(matrix, mode="economic", pivoting=True)[2]


@functools.cache
def mkl_library() -> ctypes.CDLL | None:
    """Return Intel MKL of the package ``mkl``, or None if it is not installed."""
    for path in sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*")):
        return ctypes.CDLL(str(path))
    return None


def mkl_pivots(matrix: np.ndarray) -> np.ndarray:
    """Compute the pivots by ``geqp3``, and the columns of Q for the adapters by ``ormqr``."""
    library, letter = mkl_library(), "s" if matrix.dtype == np.float32 else "d"
    d, k = matrix.shape
    m = min(d, k)
    columns = np.r_[: min(R_SUB, m), m - min(R_MAIN, m) : m]
    a, tau = np.array(matrix, order="F"), np.empty(m, matrix.dtype)
    pivots = np.zeros(k, np.int32)
    q = np.zeros((d, len(columns)), matrix.dtype, order="F")
    q[columns, np.arange(len(columns))] = 1

    def call(name: str, *arguments: object) -> None:
        converted = [a.ctypes if isinstance(a, np.ndarray) else a for a in arguments]
        status = getattr(library, f"LAPACKE_{letter}{name}")(COLUMN_MAJOR, *converted)
        if status:
            raise RuntimeError(f"LAPACKE_{letter}{name} of MKL returned {status}")

    call("geqp3", d, k, a, d, pivots, tau)
    sides = ctypes.c_char(b"L"), ctypes.c_char(b"N")
    call("ormqr", *sides, d, len(columns), m, a, d, tau, q, d)
    return pivots - 1
