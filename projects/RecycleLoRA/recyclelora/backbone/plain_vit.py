"""What every plain vision transformer here shares: patches in, block outputs out, a pyramid."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recyclelora.common.validation import check_integer, check_number


class PatchEmbed(nn.Module):
    """Cut images (B, 3, H, W) into patches and project them: (B, rows * columns, embed_dim).

    ``grid`` is the (rows, columns) of an ``img_size`` image, which the position embedding covers.
    """

    def __init__(self, img_size: int | Sequence[int], patch_size: int, embed_dim: int):
        super().__init__()
        sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size or ())
        if len(sides) != 2:
            raise ValueError(f"img_size must be one number or (height, width), got {img_size!r}")
        for side in sides:
            check_integer("img_size", side, least=1, most=65_536)
        height, width = sides
        self.grid = (height // patch_size, width // patch_size)
        if not all(self.grid):
            raise ValueError(
                f"img_size {height}x{width} is smaller than one patch of {patch_size} pixels"
            )
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


def check_sizes(
    patch_size: int,
    embed_dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float,
    num_register_tokens: int = 0,
) -> None:
    """Raise unless these are numbers that a transformer can have."""
    check_integer("patch_size", patch_size, least=1, most=1024)
    check_integer("embed_dim", embed_dim, least=1, most=65_536)
    check_integer("depth", depth, least=1, most=1000)
    check_integer("num_heads", num_heads, least=1, most=1024)
    check_number("mlp_ratio", mlp_ratio, least=0.01, most=1000)
    check_integer("num_register_tokens", num_register_tokens, most=10_000)


def init_linears(module: nn.Module) -> None:
    """Draw every linear's weight from a truncated normal of 0.02; biases begin at zero."""
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)


def pyramid_blocks(out_indices: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """The four blocks that become res2 .. res5, checked; by default 1/3, 1/2, 2/3, all of them."""
    if out_indices is None:
        out_indices = [math.ceil(depth * part) - 1 for part in (1 / 3, 1 / 2, 2 / 3, 1)]
    if len(out_indices) != 4 or not all(0 <= index < depth for index in out_indices):
        raise ValueError(
            f"out_indices must name four blocks between 0 and {depth - 1}, got {list(out_indices)}"
        )
    return tuple(out_indices)


def patch_grid(images: torch.Tensor, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches in images (B, 3, H, W), which are checked."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        what = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise ValueError(f"images must be a tensor of normalised floats, got {what}")
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (B, 3, H, W), got shape {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if not height or not width or height % patch_size or width % patch_size:
        raise ValueError(
            f"image sides must be multiples of the patch size {patch_size}, "
            f"got {height}x{width}: pad or resize the image"
        )
    return height // patch_size, width // patch_size


def block_outputs(
    blocks: Iterable[nn.Module],
    tokens: torch.Tensor,
    *shared: torch.Tensor,
    indices: Sequence[int],
    checkpointing: bool,
) -> list[torch.Tensor]:
    """Outputs (B, N, dim) of the blocks ``indices``; none after the last wanted is computed.

    Each block is called with the tokens and whatever is ``shared`` by all of them, as rotations.
    ``checkpointing`` recomputes a block in the backward pass instead of keeping its activations.
    """
    kept = {}
    for index, block in zip(range(max(indices) + 1), blocks):
        if checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, *shared, use_reentrant=False)
        else:
            tokens = block(tokens, *shared)
        if index in indices:
            kept[index] = tokens
    return [kept[index] for index in indices]


def patch_map(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The patches, which stand last among tokens (B, N, dim), as a map (B, dim, rows, columns)."""
    return tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid).contiguous()
