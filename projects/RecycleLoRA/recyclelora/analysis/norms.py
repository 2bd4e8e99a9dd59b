"""Norms of the columns of A: are those of the pivot columns still largest (paper, Table 1)?"""

from typing import NamedTuple

import torch

from recyclelora.adapters.trained_pair import Factor


class ColumnNorms(NamedTuple):
    """Norms of the columns of a factor A.

    Attributes
    ----------
    selected, rest : float
        Mean l2 norm of the pivot columns, and of all other columns.
    ratio : float
        ``selected / rest``; NaN if ``rest`` is zero.
    """

    selected: float
    rest: float
    ratio: float


def column_norms(factor: Factor) -> ColumnNorms | None:
    """Compare the l2 norms of A's pivot columns with those of its other columns.

    Table 1 of the paper contains the means of both norms, the mean ratio and the largest ratio over
    all layers.

    Parameters
    ----------
    factor : Factor
        An adapter.

    Returns
    -------
    ColumnNorms or None
        None if the initialiser selects no columns or all columns.

    Examples
    --------
    >>> A = torch.tensor([[2.0, 1.0, 0.0, 1.0]])
    >>> column_norms(Factor(A, None, None, None, pivots=torch.tensor([0])))
    ColumnNorms(selected=2.0, rest=0.6666666666666666, ratio=3.0)
    """
    if factor.pivots is None:
        return None
    norms = factor.A.double().norm(dim=0)
    chosen = torch.zeros(len(norms), dtype=torch.bool)
    chosen[factor.pivots] = True
    if chosen.all():
        return None
    selected, rest = norms[chosen].mean().item(), norms[~chosen].mean().item()
    return ColumnNorms(selected, rest, selected / rest if rest else float("nan"))
