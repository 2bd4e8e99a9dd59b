"""Similarities of the rows of A, of the columns of B, and of the subspaces of two adapters."""

import torch
from torch import Tensor


def row_cosines(rows: Tensor) -> Tensor:
    """Return the cosine similarities of all pairs of rows (paper, Figure 3).

    Parameters
    ----------
    rows : Tensor
        Rows (r, n). Pass A, or ``B.T`` for the columns of B.

    Returns
    -------
    Tensor
        (r, r). A row of zeros has similarity 0.

    Examples
    --------
    >>> row_cosines(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, -1.0]]))
    tensor([[1., 1., 0.],
            [1., 1., 0.],
            [0., 0., 1.]])
    """
    norms = rows.norm(dim=1, keepdim=True)
    unit = torch.where(norms > 0, rows / norms, torch.zeros_like(rows))
    return unit @ unit.T + 0.0  # no negative zero


def mean_off_diagonal(cosines: Tensor) -> float:
    """Return the mean absolute value off the diagonal.

    Parameters
    ----------
    cosines : Tensor
        A matrix (r, r).

    Returns
    -------
    float
        The mean; NaN for a single row.
    """
    r = len(cosines)
    if r < 2:
        return float("nan")
    off = cosines.abs() - torch.diag(cosines.abs().diagonal())
    return (off.sum() / (r * (r - 1))).item()


def subspace_similarity(first: Tensor, second: Tensor) -> float:
    r"""Return phi = ||U_1' U_2||_F^2 / min(r_1, r_2) (paper, eq. 10).

    U_i is an orthonormal basis of the span of the rows of matrix i.

    Deviation: the paper uses the left singular vectors of A. A is (r, in), so those of main and sub
    have sizes r_main and r_sub and cannot be multiplied. Here, the rows of A span a subspace of the
    input space, and the columns of B (pass ``B.T``) span a subspace of the output space.

    Parameters
    ----------
    first : Tensor, (r_1, n)
        The first matrix.
    second : Tensor, (r_2, n)
        The second matrix.

    Returns
    -------
    float
        1 if one subspace contains the other, 0 if they are orthogonal.

    Examples
    --------
    >>> e = torch.eye(4)
    >>> subspace_similarity(e[:2], e[1:4])
    0.5
    """
    bases = []
    for rows in (first, second):
        _, s, vt = torch.linalg.svd(rows, full_matrices=False)
        tolerance = s.max() * max(rows.shape) * torch.finfo(s.dtype).eps
        bases.append(vt[s > tolerance])
    smaller = min(map(len, bases))
    if smaller == 0:
        return 0.0
    return ((bases[0] @ bases[1].T).square().sum() / smaller).item()


def random_similarity(r_1: int, r_2: int, n: int) -> float:
    """Return the expectation of phi for independent random subspaces.

    The expectation of ||U_1' U_2||_F^2 is r_1 r_2 / n if one of them is uniformly distributed.

    Parameters
    ----------
    r_1, r_2 : int
        Dimensions of the subspaces.
    n : int
        Dimension of the space.

    Returns
    -------
    float
        max(r_1, r_2) / n.
    """
    return max(r_1, r_2) / n
