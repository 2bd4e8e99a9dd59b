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
    """Cosines and sines of the patches' angles, row by row: (2, rows * columns, head_dim).

    Channels 2i and 2i + 1 of a head are one plane and turn by the same angle. The first half of the
    planes turns with the patch's row, the second with its column: by ``position * theta^(-2j / d)``
    in the j-th plane of its half, d = head_dim / 2. Positions run from 0 to ``trained_side``
    (exclusive) whatever the grid's size, so an image is stretched over the grid of the pretraining.

    Parameters
    ----------
    grid : tuple[int, int]
        Rows and columns of patches.
    head_dim : int
        Channels of a head, a multiple of 4.
    trained_side : int
        Rows, and columns, of the grid in pretraining.
    like : torch.Tensor
        Tensor of the result's device; the result is float64 if this is, otherwise float32.
    theta : float
        Approximate ratio of the first plane's angle to the last one's.
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
    """Rotate the last tokens of ``heads`` (..., N, head_dim) by the angles of ``cos_sin``.

    Tokens before them (cls) have no position and are unchanged. The rotation is computed in the
    dtype of ``cos_sin``, the result has that of ``heads``.
    """
    prefix, patches = heads.tensor_split([heads.shape[-2] - cos_sin.shape[-2]], dim=-2)
    even, odd = patches.unflatten(-1, (-1, 2)).unbind(-1)
    quarter_turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    cos, sin = cos_sin
    turned = patches * cos + quarter_turned * sin
    return torch.cat([prefix, turned.to(heads.dtype)], dim=-2)
