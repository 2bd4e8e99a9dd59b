"""Compute the change of a weight by adapters, without forming a matrix of the weight's size."""

from collections.abc import Mapping

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


def change_singular_values(pair: TrainedPair) -> dict[str, Tensor]:
    """Return the singular values of B A - B_0 A_0 for main, for sub, and for both together.

    Parameters
    ----------
    pair : TrainedPair
        The adapters of a layer.

    Returns
    -------
    dict[str, Tensor]
        The values by "main", "sub" and "both", in descending order.
    """
    changes = {kind: change(factor) for kind, factor in pair.factors.items()}
    both = tuple(torch.cat([c[i] for c in changes.values()], dim=1 - i) for i in range(2))
    parts = changes | {"both": both}
    return {kind: product_singular_values(*factors) for kind, factors in parts.items()}


def relative_movement(
    pair: TrainedPair, changes: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Return ||s (B A - B_0 A_0)||_F / ||W0||_F for main, for sub, and for both together.

    Parameters
    ----------
    pair : TrainedPair
        The adapters of a layer.
    changes : Mapping[str, Tensor], optional
        The result of :func:`change_singular_values`, if it is known already.

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
    if changes is None:
        changes = change_singular_values(pair)
    scale = pair.scaling / pair.weight_norm if pair.weight_norm else float("nan")
    return {kind: scale * values.norm().item() for kind, values in changes.items()}
