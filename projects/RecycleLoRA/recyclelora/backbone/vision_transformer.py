"""The base class of DINOv2 and EVA-02, which maps patches to the outputs of selected blocks."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recyclelora.common.validation import check_integer, check_number

from .pyramid import CoarseMap, PyramidBackbone, feature_pyramid
from .resample import resample_position_embedding


class PatchEmbed(nn.Module):
    """Cut images into patches and project them.

    Parameters
    ----------
    img_size : int | Sequence[int]
        Side, or height and width, of the image whose ``grid`` (rows, columns) of patches the
        position embedding covers.
    patch_size : int
        Side of a patch in pixels.
    embed_dim : int
        Number of channels of the result.

    Raises
    ------
    ValueError
        If ``img_size`` is invalid or smaller than a patch.
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
        """Project the patches.

        On the CPU, autocast has no effect here: this convolution takes 15 times as long in bfloat16
        as in float32.

        Parameters
        ----------
        images : Tensor
            Images (B, 3, H, W).

        Returns
        -------
        Tensor
            Tokens (B, rows * columns, embed_dim).
        """
        with torch.autocast("cpu", enabled=False):
            return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(PyramidBackbone):
    """Patches, a cls token, learned positions, and a pyramid of the outputs of four blocks.

    A subclass creates ``blocks``, renames checkpoints in :meth:`rename_keys`, and may override
    :meth:`prepare_tokens` and :meth:`block_inputs`. The arguments are those of
    :class:`DinoVisionTransformer`.

    Attributes
    ----------
    optional_weights : frozenset of str
        Names of parameters that a checkpoint may lack.
    """

    optional_weights: frozenset[str] = frozenset()
    blocks: nn.ModuleList

    def __init__(
        self,
        *,
        img_size: int | Sequence[int],
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        interpolate_antialias: bool,
        out_indices: Sequence[int] | None,
        checkpointing: bool,
        interpolate_offset: float = 0.0,
    ):
        super().__init__()
        check_integer("patch_size", patch_size, least=1, most=1024)
        check_integer("embed_dim", embed_dim, least=1, most=65_536)
        check_integer("depth", depth, least=1, most=1000)
        check_integer("num_heads", num_heads, least=1, most=1024)
        check_number("mlp_ratio", mlp_ratio, least=0.01, most=1000)
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.out_indices = pyramid_blocks(out_indices, depth)
        self.interpolate_offset = interpolate_offset
        self.interpolate_antialias = interpolate_antialias
        self.checkpointing = checkpointing
        self.patch_embed = PatchEmbed(img_size, patch_size, embed_dim)
        positions = 1 + math.prod(self.patch_embed.grid)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))

    def rename_keys(
        self, tensors: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], str, list[str]]:
        """Rename a checkpoint's tensors to the keys of this class.

        Parameters
        ----------
        tensors : dict[str, Tensor]
            The tensors by their names in the checkpoint.

        Returns
        -------
        tuple[dict[str, torch.Tensor], str, list[str]]
            The renamed tensors, the name of the layout, and the names that are left out, see
            :func:`rename_dinov2`.

        Raises
        ------
        NotImplementedError
            If a subclass does not implement the method.
        """
        raise NotImplementedError

    def position_embedding(self, rows: int, columns: int) -> torch.Tensor:
        """Return the position embedding for a grid of patches.

        Parameters
        ----------
        rows, columns : int
            The grid.

        Returns
        -------
        Tensor
            (1, 1 + rows * columns, embed_dim); the cls token comes first.
        """
        return resample_position_embedding(
            self.pos_embed,
            self.patch_embed.grid,
            (rows, columns),
            offset=self.interpolate_offset,
            antialias=self.interpolate_antialias,
        )

    def prepare_tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the input of the first block.

        Parameters
        ----------
        images : Tensor
            Images (B, 3, H, W).

        Returns
        -------
        Tensor
            Tokens (B, N, dim), first cls, then the patches.
        """
        rows, columns = patch_grid(images, self.patch_size)
        # Autocast may compute the patches in half precision, but the residual stream stays in full.
        patches = self.patch_embed(images).to(self.pos_embed.dtype)
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], dim=1)
        return tokens + self.position_embedding(rows, columns)

    def block_inputs(self, tokens: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        """Return the inputs of every block besides the tokens; none by default.

        Parameters
        ----------
        tokens : Tensor
            Tokens (B, N, dim).
        grid : tuple[int, int]
            Rows and columns of the patches.

        Returns
        -------
        tuple[torch.Tensor, ...]
            The further arguments of a block.
        """
        return ()

    def forward(
        self, images: torch.Tensor, *, enlarge: bool = True
    ) -> dict[str, torch.Tensor | CoarseMap]:
        """Compute the feature pyramid.

        Parameters
        ----------
        images : Tensor
            Images (B, 3, H, W).
        enlarge : bool
            See :func:`feature_pyramid`.

        Returns
        -------
        dict[str, Tensor or CoarseMap]
            The maps res2 .. res5.
        """
        grid = patch_grid(images, self.patch_size)
        outputs = self._block_outputs(images, self.out_indices)
        return feature_pyramid([patch_map(tokens, grid) for tokens in outputs], enlarge=enlarge)

    def _block_outputs(self, images: torch.Tensor, indices: Sequence[int]) -> list[torch.Tensor]:
        """Return the outputs (B, N, dim) of the blocks ``indices``; later blocks are skipped."""
        tokens = self.prepare_tokens(images)
        inputs = self.block_inputs(tokens, patch_grid(images, self.patch_size))
        outputs = {}
        for index, block in enumerate(self.blocks[: max(indices) + 1]):
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, *inputs, use_reentrant=False)
            else:
                tokens = block(tokens, *inputs)
            if index in indices:
                outputs[index] = tokens
        return [outputs[index] for index in indices]


def init_linears(module: nn.Module) -> None:
    """Initialise linear layers as in DINOv2.

    Weights are drawn from a truncated normal distribution with a standard deviation of 0.02. Biases
    are 0.

    Parameters
    ----------
    module : nn.Module
        The module whose linear layers are initialised.
    """
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)


def pyramid_blocks(out_indices: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Validate the four blocks of the pyramid.

    Parameters
    ----------
    out_indices : Sequence[int] or None
        The blocks, or None for those after 1/3, 1/2, 2/3 and all of the depth.
    depth : int
        Number of blocks of the model.

    Returns
    -------
    tuple[int, ...]
        The blocks.

    Raises
    ------
    ValueError
        If there are not four blocks in the range of the model.
    """
    if out_indices is None:
        out_indices = [math.ceil(depth * part) - 1 for part in (1 / 3, 1 / 2, 2 / 3, 1)]
    if len(out_indices) != 4 or not all(0 <= index < depth for index in out_indices):
        raise ValueError(
            f"out_indices must name four blocks between 0 and {depth - 1}, got {list(out_indices)}"
        )
    return tuple(out_indices)


def patch_grid(images: torch.Tensor, patch_size: int) -> tuple[int, int]:
    """Validate images and return their numbers of rows and columns of patches.

    Parameters
    ----------
    images : Tensor
        Images (B, 3, H, W).
    patch_size : int
        Side of a patch in pixels.

    Returns
    -------
    tuple[int, int]
        Rows and columns.

    Raises
    ------
    ValueError
        If the images are not a float tensor of this shape, or if a side is not a multiple of the
        patch size.
    """
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


def patch_map(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Arrange the patches, the last of the tokens, as a map.

    Parameters
    ----------
    tokens : Tensor
        Tokens (B, N, dim).
    grid : tuple[int, int]
        Rows and columns.

    Returns
    -------
    Tensor
        (B, dim, rows, columns).
    """
    return tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid).contiguous()
