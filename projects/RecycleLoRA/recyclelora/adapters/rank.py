"""Compute the effective rank of the update B A without forming it (paper, Table 2)."""

import torch
from torch import Tensor


def product_singular_values(B: Tensor, A: Tensor) -> Tensor:
    """Return the singular values of B A in descending order.

    With the QR decompositions B = Q_B R_B and A' = Q_A R_A, they are the singular values of the
    small matrix R_B R_A'. The cost is O((out + in) r^2).

    Parameters
    ----------
    B : Tensor, (out, r)
        The left factor.
    A : Tensor, (r, in)
        The right factor.

    Returns
    -------
    Tensor, (min(out, r, in),)
        The singular values.
    """
    _, R_B = torch.linalg.qr(B)
    _, R_A = torch.linalg.qr(A.T)
    return torch.linalg.svdvals(R_B @ R_A.T)


def effective_rank(singular_values: Tensor) -> float:
    """Return exp(H(p)) with p_i = s_i / sum(s) and the entropy H (Roy and Vetterli, 2007).

    The paper calls the effective rank divided by r the rank efficiency.

    Parameters
    ----------
    singular_values : Tensor, (n,)
        The singular values of a matrix.

    Returns
    -------
    float
        A value from 1 to n, or 0 for a matrix of zeros.

    Examples
    --------
    >>> round(effective_rank(torch.tensor([2.0, 2.0, 0.0])), 6)
    2.0
    """
    total = singular_values.sum()
    if total == 0:
        return 0.0
    p = singular_values / total
    return torch.special.entr(p).sum().exp().item()
