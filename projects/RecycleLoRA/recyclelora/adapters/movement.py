"""Compute the change of a weight by adapters, without forming a matrix of the weight's size."""

import torch
from torch import Tensor

from .rank import product_singular_values
from .trained_pair import Factor, TrainedPair


def change(factor: Factor) -> tuple[Tensor, Tensor]:
    """Return two matrices whose product is B A minus its initial value.

    Parameters
    ----------
    factor : Factor
        An adapter.

    Returns
    -------
    columns : Tensor
        (out, 2r).
    rows : Tensor
        (2r, in).
    """
    B = torch.cat([factor.B, -factor.initial_B], dim=1)
    return B, torch.cat([factor.A, factor.initial_A])


def relative_movement(pair: TrainedPair) -> dict[str, float]:
    """Return ||s (B A - B_0 A_0)||_F / ||W0||_F for main, for sub, and for both together.

    Parameters
    ----------
    pair : TrainedPair
        The adapters of a layer.

    Returns
    -------
    dict[str, float]
        The values by "main", "sub" and "both".

    Examples
    --------
    >>> from recyclelora import adapt
    >>> from recyclelora.analysis import trained_pairs
    >>> model = adapt(torch.nn.Sequential(torch.nn.Linear(16, 8)), r_main=3, r_sub=1)
    >>> moved = relative_movement(trained_pairs(model)[0])
    >>> {kind: round(value, 6) for kind, value in moved.items()}
    {'main': 0.0, 'sub': 0.0, 'both': 0.0}
    """
    changes = {kind: change(factor) for kind, factor in pair.factors.items()}
    B, A = (torch.cat([c[i] for c in changes.values()], dim=1 - i) for i in range(2))
    scale = pair.scaling / pair.weight_norm if pair.weight_norm else float("nan")
    parts = changes | {"both": (B, A)}
    return {
        kind: scale * product_singular_values(*factors).norm().item()
        for kind, factors in parts.items()
    }
