"""Where adapters start: factors B A of a weight, from its pivoted QR, its SVD, or at random."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..ops import rrqr

# Of weights decomposed together, as float32 or wider: enough for all equal layers of DINOv2-L.
STACKED_BYTES = 1 << 29


class Factors(NamedTuple):
    """Initial factors of the main adapter (first r_main) and the sub adapter (last r_sub).

    ``B`` is (out, r_main + r_sub). ``A`` is (r_main + r_sub, in), or None where its rows are
    one-hot: then row i is 1 at ``columns[i]`` and ``columns`` is (r_main + r_sub,), int64. Those
    of a stack of weights have one more dimension in front.
    """

    A: Tensor | None
    B: Tensor
    columns: Tensor | None


def rrqr_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """Minor directions for main, major directions for sub (paper, eqs. 5 to 7).

    With ``weight[:, P] = Q R`` and m = min(out, in): main takes the last r_main columns of Q and
    the pivots P[m - r_main + i], sub the first r_sub columns of Q and the pivots P[i].

    Deviation: eq. 7 counts main's pivots back from in, not from m. For a wide weight those
    columns have no direction in Q; the published code, and this one, counts from m.
    """
    upcast = weight if weight.dtype == torch.float64 else weight.float()
    perm, q_major, q_minor, _ = rrqr(upcast, r_sub, r_main)
    last = min(weight.shape[-2:])
    columns = torch.cat([perm[..., last - r_main : last], perm[..., :r_sub]], dim=-1)
    return Factors(None, torch.cat([q_minor, q_major], dim=-1).to(weight.dtype), columns)


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
    return Factors(A.to(weight.dtype), B.to(weight.dtype), None)


def kaiming_factors(weight: Tensor, r_main: int, r_sub: int, scaling: float) -> Factors:
    """LoRA's start: A Kaiming-uniform (from torch's global generator), B zero."""
    *stack, out_features, in_features = weight.shape
    A = weight.new_empty(*stack, r_main + r_sub, in_features)
    for one in A.view(math.prod(stack), r_main + r_sub, in_features):
        for rows in one.split([r_main, r_sub]):
            if rows.numel():
                nn.init.kaiming_uniform_(rows, a=math.sqrt(5))
    return Factors(A, weight.new_zeros(*stack, out_features, r_main + r_sub), None)


INITIALISERS: dict[str, Callable[[Tensor, int, int, float], Factors]] = {
    "rrqr": rrqr_factors,
    "svd": svd_factors,
    "kaiming": kaiming_factors,
}


def initial_factors(
    layers: Mapping[str, nn.Module],
    weight_of: Callable[[nn.Module], Tensor],
    *,
    r_main: int,
    r_sub: int,
    alpha: float,
    init: str,
    description: str,
) -> Iterator[tuple[str, Factors]]:
    """Name and initial factors of every layer: those of equal shape together, the largest first.

    ``weight_of(layer)`` is what to decompose, shaped like ``layer.weight``; a progress bar of
    this ``description`` counts the layers.
    Together they keep every thread, or a GPU, busy; the factors are those of each weight alone,
    bit for bit. The extra memory is that of these weights (STACKED_BYTES, or one a thread) and of
    what the decomposition makes of them.
    """
    bar = tqdm(total=len(layers), desc=description, unit="layer", delay=1, leave=False)
    for names in _stacks(layers, init):
        weights = torch.stack([weight_of(layers[name]) for name in names])
        factors = INITIALISERS[init](weights, r_main, r_sub, alpha / max(r_main + r_sub, 1))
        del weights
        for i, name in enumerate(names):
            # Clones, so that no layer holds on to the whole stack.
            yield name, Factors(*(None if f is None else f[i].clone() for f in factors))
            bar.update()
    bar.close()


def _stacks(layers: Mapping[str, nn.Module], init: str) -> Iterator[list[str]]:
    if init == "kaiming":  # drawn, so in the order of the model
        yield from ([name] for name in layers)
        return
    groups: dict[tuple[torch.Size, torch.dtype, torch.device], list[str]] = {}
    for name, layer in layers.items():
        weight = layer.weight
        groups.setdefault((weight.shape, weight.dtype, weight.device), []).append(name)
    for (shape, dtype, _), names in sorted(groups.items(), key=lambda group: -group[0][0].numel()):
        size = shape.numel() * max(dtype.itemsize, 4)
        count = max(STACKED_BYTES // max(size, 1), torch.get_num_threads())
        for start in range(0, len(names), count):
            yield names[start : start + count]
