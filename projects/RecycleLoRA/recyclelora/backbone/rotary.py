"""Rotary positions of patches in two dimensions, as EVA-02 has them."""

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

    Args:
        grid: rows and columns of patches.
        head_dim: channels of a head, a multiple of 4.
        trained_side: rows, and columns, of the grid in pretraining.
        like: gives the device, and float64 if it is that; otherwise the result is float32.
        theta: how much slower the last plane turns than the first, nearly.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    exponents = torch.arange(0, head_dim // 2, 2, device=like.device, dtype=dtype)
    frequencies = theta ** (-exponents / (head_dim // 2))
    rows, columns = (
        torch.arange(side, device=like.device, dtype=dtype).div(side).mul(trained_side)
        for side in grid
    )
    by_row = torch.outer(rows, frequencies)[:, None].expand(-1, len(columns), -1)
    by_column = torch.outer(columns, frequencies)[None].expand(len(rows), -1, -1)
    angles = torch.cat([by_row, by_column], dim=-1).flatten(0, 1).repeat_interleave(2, dim=-1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(heads: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
    """Turn the last tokens of ``heads`` (..., N, head_dim), those that ``cos_sin`` has angles for.

    Tokens before them (cls) have no position and stay. Computed in the precision of ``cos_sin``,
    returned in that of ``heads``.
    """
    prefix, patches = heads.tensor_split([heads.shape[-2] - cos_sin.shape[-2]], dim=-2)
    even, odd = patches.unflatten(-1, (-1, 2)).unbind(-1)
    quarter_turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    cos, sin = cos_sin
    turned = patches * cos + quarter_turned * sin
    return torch.cat([prefix, turned.to(heads.dtype)], dim=-2)
