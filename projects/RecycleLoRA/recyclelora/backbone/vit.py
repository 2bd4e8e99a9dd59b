"""The DINOv2 vision transformer as a Detectron2 backbone."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from .block import Block
from .layouts import to_official
from .plain_vit import (
    PatchEmbed,
    block_outputs,
    check_sizes,
    init_linears,
    patch_grid,
    patch_map,
    pyramid_blocks,
)
from .pyramid import PyramidBackbone, feature_pyramid
from .resample import resample_position_embedding


@BACKBONE_REGISTRY.register()
class DinoVisionTransformer(PyramidBackbone):
    """DINOv2, from the outputs of chosen blocks a pyramid ``res2`` .. ``res5``.

    State-dict keys are those of facebookresearch/dinov2. Called with normalised images
    (B, 3, H, W), it takes the outputs of the blocks ``out_indices`` (as they are: the final norm is
    not applied) as maps (B, embed_dim, H / patch, W / patch), and resizes them by 4, 2, 1 and 1/2.
    H and W are any multiples of the patch, at least two patches; the grid of position embeddings is
    resampled to them. Every matrix product with a weight is an ``nn.Linear`` called as a module, so
    ``recyclelora.adapt`` reaches all of them. Works under autocast (the residual stream stays in
    the parameters' dtype), on the meta device, and in ``torch.compile``.

    Args:
        img_size: pixels of the image that ``pos_embed`` covers, one number or (height, width).
        patch_size: pixels of a patch. A pyramid with strides 4, 8, 16, 32 needs 16.
        embed_dim, depth, num_heads, mlp_ratio: the transformer's size.
        qkv_bias, proj_bias, ffn_bias: whether those linear layers have a bias.
        ffn_layer: "mlp", or "swiglu" (also spelled "swiglufused") as in ViT-g.
        init_values: initial LayerScale factor; None leaves LayerScale out.
        block_chunks: only 0; checkpoints of chunked models are read by ``load_weights``.
        num_register_tokens: tokens between cls and patches that have no position.
        interpolate_offset, interpolate_antialias: how position embeddings are resampled to an
            image's size, see :func:`resample_position_embedding`. 0.1 and False as DINOv2 without
            registers, Rein, SoMA and RecycleLoRA do; 0.0 and True as DINOv2 with registers.
        layer_norm_eps: of every LayerNorm.
        out_indices: the four blocks that become res2 .. res5, counted from 0. By default those
            after 1/3, 1/2, 2/3 and all of the depth: 7, 11, 15, 23 in ViT-L.
        checkpointing: recompute each block in the backward pass instead of keeping its
            activations: the same gradients for less memory and about a third more time.

    Raises:
        ValueError: on sizes that do not fit, in one sentence.

    >>> model = DinoVisionTransformer(img_size=64, patch_size=16, embed_dim=24, num_heads=2)
    >>> {level: tuple(f.shape[1:]) for level, f in model(torch.zeros(1, 3, 64, 96)).items()}
    {'res2': (24, 16, 24), 'res3': (24, 8, 12), 'res4': (24, 4, 6), 'res5': (24, 2, 3)}
    """

    # Used in DINOv2's pretraining only, so timm and ONNX files lack it.
    optional_weights = frozenset({"mask_token"})

    @configurable
    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 518,
        patch_size: int = 14,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        ffn_bias: bool = True,
        ffn_layer: str = "mlp",
        init_values: float | None = 1.0,
        block_chunks: int = 0,
        num_register_tokens: int = 0,
        interpolate_offset: float = 0.1,
        interpolate_antialias: bool = False,
        layer_norm_eps: float = 1e-6,
        out_indices: Sequence[int] | None = None,
        checkpointing: bool = False,
    ):
        super().__init__()
        if block_chunks:
            raise ValueError(f"block_chunks must be 0, got {block_chunks}: chunks change no output")
        check_sizes(patch_size, embed_dim, depth, num_heads, mlp_ratio, num_register_tokens)
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
        self.register_tokens = (
            nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim))
            if num_register_tokens
            else None
        )
        # Unused here; kept so that state dicts are complete.
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                proj_bias=proj_bias,
                ffn_bias=ffn_bias,
                ffn_layer=ffn_layer,
                init_values=init_values,
                layer_norm_eps=layer_norm_eps,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=layer_norm_eps)
        self._init_weights()

    def read_layout(
        self, tensors: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], str, list[str]]:
        """For :func:`load_weights`: a checkpoint's tensors under this class's names."""
        return to_official(tensors)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """For yacs users: ``cfg.MODEL.DINOV2`` holds the constructor's arguments in capitals."""
        return {name.lower(): value for name, value in cfg.MODEL.DINOV2.items()}

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        init_linears(self.blocks)

    def position_embedding(self, rows: int, columns: int) -> torch.Tensor:
        """``pos_embed`` for a grid of patches: (1, 1 + rows * columns, embed_dim), cls first."""
        return resample_position_embedding(
            self.pos_embed,
            self.patch_embed.grid,
            (rows, columns),
            offset=self.interpolate_offset,
            antialias=self.interpolate_antialias,
        )

    def prepare_tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) -> what the first block sees: cls, registers, patches (B, N, dim)."""
        rows, columns = patch_grid(images, self.patch_size)
        # Under autocast the patches come in a half precision; the residual stream goes on in full.
        patches = self.patch_embed(images).to(self.pos_embed.dtype)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = tokens + self.position_embedding(rows, columns)
        if self.register_tokens is None:
            return tokens
        registers = self.register_tokens.expand(len(images), -1, -1)
        return torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)

    def _block_outputs(self, images: torch.Tensor, indices: Sequence[int]) -> list[torch.Tensor]:
        tokens = self.prepare_tokens(images)
        return block_outputs(self.blocks, tokens, indices=indices, checkpointing=self.checkpointing)

    def get_intermediate_layers(
        self,
        images: torch.Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple:
        """Outputs of the last ``n`` blocks, or of the blocks ``n``, as the official method gives.

        Each is the patch tokens (B, rows * columns, embed_dim), with ``reshape`` the map
        (B, embed_dim, rows, columns); with ``return_class_token`` a pair of these and the cls
        token (B, embed_dim). ``norm`` applies the final LayerNorm.
        """
        depth = len(self.blocks)
        indices = list(range(depth - n, depth)) if isinstance(n, int) else list(n)
        if not indices or not all(0 <= index < depth for index in indices):
            raise ValueError(f"n must name blocks between 0 and {depth - 1}, got {n}")
        outputs = self._block_outputs(images, indices)
        if norm:
            outputs = [self.norm(tokens) for tokens in outputs]
        grid = patch_grid(images, self.patch_size)
        features = [
            patch_map(tokens, grid) if reshape else tokens[:, -grid[0] * grid[1] :]
            for tokens in outputs
        ]
        if return_class_token:
            return tuple(zip(features, (tokens[:, 0] for tokens in outputs)))
        return tuple(features)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        grid = patch_grid(images, self.patch_size)
        outputs = self._block_outputs(images, self.out_indices)
        return feature_pyramid([patch_map(tokens, grid) for tokens in outputs])
