"""Compute all measures of trained adapters, per layer and overall, as plain data for JSON."""

import statistics
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from tqdm import tqdm

from recyclelora.adapters import adapted_layers
from recyclelora.adapters.movement import change_singular_values, relative_movement
from recyclelora.adapters.rank import effective_rank, product_singular_values
from recyclelora.adapters.trained_pair import Factor, TrainedPair, trained_pairs
from recyclelora.ops import rrqr

from .norms import column_norms
from .similarity import mean_off_diagonal, random_similarity, row_cosines, subspace_similarity

#: The keys of an adapter whose means over the layers are part of ``overall``.
MEANS = ("rank", "effective_rank", "efficiency", "change_rank", "row_cosine", "column_cosine")


def analyze_adapters(model: nn.Module) -> dict:
    """Measure the adapters of every layer of a model.

    Parameters
    ----------
    model : nn.Module
        An adapted and trained model. It may be merged.

    Returns
    -------
    dict
        ``{"layers": [...], "overall": {...}}`` with plain types. A layer has its name, block,
        shape, ranks and relative movement. For each adapter, it has the column norms (Table 1), the
        effective rank of s B A and its ratio to r (Table 2), and the mean absolute cosine
        similarity of A's rows and of B's columns (Figure 3). ``change_rank`` is the effective rank
        of the change B A - B_0 A_0, at most 2 r; B A also contains the initial factors. "both" is
        the effective rank of the sum of the two updates. ``subspace`` is phi of main and sub in the
        input space and in the output space (Figure 4), each with its expectation for random
        subspaces. ``r_diag`` is the diagonal of R of W0. Absent adapters are left out. Undefined
        values are left out or None.

    Examples
    --------
    >>> from recyclelora import adapt
    >>> found = analyze_adapters(adapt(nn.Sequential(nn.Linear(16, 8)), r_main=3, r_sub=1))
    >>> round(found["layers"][0]["main"]["effective_rank"], 3)
    3.0
    """
    layers = adapted_layers(model)
    measured = []
    for pair in tqdm(trained_pairs(model), "analyzing", unit="layer", delay=1, leave=False):
        weight = layers[pair.name].pretrained_weight().detach().float()
        measured.append(_layer(pair) | {"r_diag": _r_diag(weight)})
    return {"layers": measured, "overall": overall(measured)}


def _r_diag(weight: torch.Tensor) -> list[float]:
    *_, diagonal = rrqr(weight, n_major=0, n_minor=0)
    return [float(f"{value:.6g}") for value in diagonal.abs().tolist()]


def _layer(pair: TrainedPair) -> dict:
    changes = change_singular_values(pair)
    result: dict = {
        "name": pair.name,
        "block": pair.block,
        "shape": list(pair.shape),
        "moved": relative_movement(pair, changes),
    }
    for kind, factor in pair.factors.items():
        result[kind] = _adapter(factor) | {"change_rank": effective_rank(changes[kind])}
    if pair.main is not None and pair.sub is not None:
        B = torch.cat([pair.main.B, pair.sub.B], dim=1)
        A = torch.cat([pair.main.A, pair.sub.A])
        rank = effective_rank(product_singular_values(B, A))
        total = pair.main.rank + pair.sub.rank
        result["both"] = {
            "rank": total,
            "effective_rank": rank,
            "efficiency": rank / total,
            "change_rank": effective_rank(changes["both"]),
        }
        out_features, in_features = pair.shape
        ranks = pair.main.rank, pair.sub.rank
        result["subspace"] = {
            "input": subspace_similarity(pair.main.A, pair.sub.A),
            "input_random": random_similarity(*ranks, in_features),
            "output": subspace_similarity(pair.main.B.T, pair.sub.B.T),
            "output_random": random_similarity(*ranks, out_features),
        }
    return result


def _adapter(factor: Factor) -> dict:
    rank = effective_rank(product_singular_values(factor.B, factor.A))
    norms = column_norms(factor)
    return {
        "rank": factor.rank,
        "effective_rank": rank,
        "efficiency": rank / factor.rank,
        "column_norms": None if norms is None else norms._asdict(),
        "row_cosine": _number(mean_off_diagonal(row_cosines(factor.A))),
        "column_cosine": _number(mean_off_diagonal(row_cosines(factor.B.T))),
        "pivots": None if factor.pivots is None else factor.pivots.tolist(),
    }


def _number(value: float) -> float | None:
    return None if value != value else value  # NaN is not JSON


def overall(layers: Sequence[dict]) -> dict:
    """Return the means over all layers, and the largest ratio of column norms.

    Parameters
    ----------
    layers : Sequence[dict]
        The layers, see :func:`analyze_adapters`.

    Returns
    -------
    dict
        The means by name.
    """
    result: dict = {}
    for kind in ("main", "sub", "both"):
        own = [layer[kind] for layer in layers if kind in layer]
        if not own:
            continue
        result[kind] = {key: _mean(one.get(key) for one in own) for key in MEANS}
        norms = [one["column_norms"] for one in own if one.get("column_norms")]
        if norms:
            ratios = [_number(norm["ratio"]) for norm in norms]
            result[kind]["column_norms"] = {
                "selected": _mean(norm["selected"] for norm in norms),
                "rest": _mean(norm["rest"] for norm in norms),
                "mean_ratio": _mean(ratios),
                "max_ratio": max((r for r in ratios if r is not None), default=None),
            }
        result[kind]["moved"] = _mean(layer["moved"].get(kind) for layer in layers)
    spaces = [layer["subspace"] for layer in layers if "subspace" in layer]
    if spaces:
        result["subspace"] = {key: _mean(space[key] for space in spaces) for key in spaces[0]}
    return result


def by_block(layers: Sequence[dict], space: str) -> dict[int, float]:
    """Return the mean phi of each block (Figure 4).

    Parameters
    ----------
    layers : Sequence[dict]
        The layers, see :func:`analyze_adapters`.
    space : str
        "input" or "output"; with the suffix "_random" the expectation.

    Returns
    -------
    dict[int, float]
        The means by the index of the block.
    """
    blocks: dict[int, list[float]] = {}
    for layer in layers:
        if "subspace" in layer and layer["block"] is not None:
            blocks.setdefault(layer["block"], []).append(layer["subspace"][space])
    return {block: statistics.fmean(values) for block, values in sorted(blocks.items())}


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present else None
