"""The peak rates of one thread, and the time that a decomposition needs at these rates."""

from collections.abc import Callable

import torch

from benchmark.measure import R_MAIN, R_SUB
from benchmark.worker import seconds_of

SIZE = 1024  # size of the products; larger ones are not faster
BYTES = 1 << 28  # bytes read and written for the bandwidth, more than any cache holds


def rates(system: str, rounds: int) -> dict[str, float]:
    """Return the best operations and bytes per second of this process. ``system`` is not used."""
    cpu = torch.device("cpu")

    def best(call: Callable[[], object]) -> float:
        return min(seconds_of(call, cpu)[0] for _ in range(1 + rounds))

    found = {}
    for name, dtype in (("dgemm", torch.float64), ("sgemm", torch.float32)):
        a, b = torch.randn(2, SIZE, SIZE, dtype=dtype)
        out = torch.empty_like(a)
        found[name] = 2 * SIZE**3 / best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
    source = torch.zeros(BYTES // 8)
    target = torch.ones_like(source)
    found["bandwidth"] = BYTES / best(lambda: target.copy_(source))
    return found


def needs(shape: tuple[int, int]) -> dict[str, float]:
    """Return the operations and bytes of the algorithm in ``csrc/README.md`` for a weight (d, k).

    A tall matrix needs the Cholesky factorisation of its Gram matrix in float64, the coefficients
    of the certificate in float32, and two passes over the requested columns of Q. A wide matrix
    needs the reflections of its d pivots in float64 and of all columns in float32.
    """
    d, k = shape
    m, columns = min(d, k), R_MAIN + R_SUB
    if d >= k:
        double = d * k**2 + k**3 / 3 + columns * (6 * d * k + 3 * k**2)
        single = k**3 / 3
    else:
        double = 4 * m**3 / 3 + 4 * m**2 * columns
        single = 2 * m**2 * (k - m / 3)
    return {"dgemm": double, "sgemm": single, "bandwidth": 4 * d * k + 8 * m * m}


def limit(shape: tuple[int, int], found: dict[str, float]) -> float:
    """Return the seconds that these operations and bytes take in sequence at these rates."""
    return sum(amount / found[name] for name, amount in needs(shape).items())
