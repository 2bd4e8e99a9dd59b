"""Rotary positions of patches in two dimensions, as in EVA-02."""

import torch


def rotations(
    grid: tuple[int, int],
    head_dim: int,
    *,
    trained_side: int,
    like: torch.Tensor,
    theta: float = 10_000.0,
) -> torch.Tensor:
    """Return the cosines and sines of the angles of all patches, row by row.

    Channels 2i and 2i + 1 of a head form a plane and are rotated by the same angle. The angle in
    the first half of the planes depends on the row of the patch, in the second half on its column.
    It is ``position * theta^(-2j / d)`` in the j-th plane of its half, with d = head_dim / 2.
    Positions run from 0 to ``trained_side`` (exclusive) for every size of the grid, so an image is
    stretched over the grid of the pretraining.

    Parameters
    ----------
    grid : tuple[int, int]
        Rows and columns of patches.
    head_dim : int
        Channels of a head, a multiple of 4.
    trained_side : int
        Number of rows, and of columns, of the grid in pretraining.
    like : torch.Tensor
        A tensor on the device of the result. The result is float64 if ``like`` is float64,
        otherwise float32.
    theta : float
        Approximate ratio between the angles of the first and the last plane.

    Returns
    -------
    Tensor
        (2, rows * columns, head_dim).
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    exponents = torch.arange(0, head_dim // 2, 2, device=like.device, dtype=dtype)
    frequencies = theta ** (-exponents / (head_dim // 2))
    rows, columns = (
        torch.arange(side, device=like.device, dtype=dtype).div(side).mul(trained_side)
        for side in grid
    )
    by_row = torch.outer(rows, frequencies)[:, None].expand(-1, grid[1], -1)
    by_column = torch.outer(columns, frequencies)[None].expand(grid[0], -1, -1)
    angles = torch.cat([by_row, by_column], dim=-1).flatten(0, 1).repeat_interleave(2, dim=-1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(heads: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
    """Rotate the patch tokens of all heads.

    Tokens before the patches (cls) have no position and are not changed. The rotation is computed
    in the dtype of ``cos_sin``.

    Parameters
    ----------
    heads : Tensor
        Tokens (..., N, head_dim).
    cos_sin : Tensor
        The result of :func:`rotations`.

    Returns
    -------
    Tensor
        Tokens (..., N, head_dim) in the dtype of ``heads``.
    """
    prefix, patches = heads.tensor_split([heads.shape[-2] - cos_sin.shape[-2]], dim=-2)
    even, odd = patches.unflatten(-1, (-1, 2)).unbind(-1)
    quarter_turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    cos, sin = cos_sin
    turned = patches * cos + quarter_turned * sin
    return torch.cat([prefix, turned.to(heads.dtype)], dim=-2)
