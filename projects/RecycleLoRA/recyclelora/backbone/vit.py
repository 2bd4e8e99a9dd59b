"""The DINOv2 vision transformer as a Detectron2 backbone."""

from collections.abc import Sequence

import torch
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from recyclelora.common.validation import check_integer

from .block import Block
from .rename_keys import rename_dinov2
from .vision_transformer import VisionTransformer, init_linears, patch_grid, patch_map


@BACKBONE_REGISTRY.register()
class DinoVisionTransformer(VisionTransformer):
    """DINOv2 with a pyramid ``res2`` .. ``res5`` of the outputs of four blocks.

    State-dict keys are those of facebookresearch/dinov2. The input is normalised images (B, 3, H,
    W). The outputs of the blocks ``out_indices``, without the final norm, become maps (B,
    embed_dim, H / patch, W / patch), which are resized by 4, 2, 1 and 1/2. H and W are multiples of
    the patch size and at least two patches. Position embeddings are resampled to the grid of the
    image. Every matrix product with a weight is an ``nn.Linear`` that is called as a module, so
    ``recyclelora.adapt`` reaches all of them. Autocast (the residual stream keeps the dtype of the
    parameters), the meta device and ``torch.compile`` are supported.

    Parameters
    ----------
    img_size : int or (int, int)
        Pixels of the image that ``pos_embed`` covers: one side, or height and width.
    patch_size : int
        Pixels of a patch. A pyramid with strides 4, 8, 16, 32 needs 16.
    embed_dim, depth, num_heads : int
        Width, number of blocks, number of heads.
    mlp_ratio : float
        Width of the feed-forward relative to ``embed_dim``.
    qkv_bias, proj_bias, ffn_bias : bool
        Whether these linear layers have a bias.
    ffn_layer : str
        "mlp", or "swiglu" (also "swiglufused") as in ViT-g.
    init_values : float or None
        Initial LayerScale factor; None omits LayerScale.
    block_chunks : int
        Must be 0. ``load_weights`` also reads checkpoints of chunked models.
    num_register_tokens : int
        Number of register tokens, which have no position, between cls and patches.
    interpolate_offset, interpolate_antialias : float, bool
        How position embeddings are resampled to the size of an image, see
        :func:`resample_position_embedding`. DINOv2 without registers, Rein, SoMA and RecycleLoRA
        have 0.1 and False. DINOv2 with registers has 0.0 and True.
    layer_norm_eps : float
        Epsilon of every LayerNorm.
    out_indices : sequence of 4 ints, or None
        Blocks of res2 .. res5, counted from 0. By default those after 1/3, 1/2, 2/3 and all of the
        depth: 7, 11, 15, 23 in ViT-L.
    checkpointing : bool
        Whether to recompute each block in the backward pass instead of storing its activations.
        The gradients are the same, with less memory and about a third more time.

    Raises
    ------
    ValueError
        If sizes do not fit.

    Examples
    --------
    >>> model = DinoVisionTransformer(img_size=64, patch_size=16, embed_dim=24, num_heads=2)
    >>> {level: tuple(f.shape[1:]) for level, f in model(torch.zeros(1, 3, 64, 96)).items()}
    {'res2': (24, 16, 24), 'res3': (24, 8, 12), 'res4': (24, 4, 6), 'res5': (24, 2, 3)}
    """

    # Only the pretraining of DINOv2 uses it, so timm and ONNX files lack it.
    optional_weights = frozenset({"mask_token"})

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
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            interpolate_offset=interpolate_offset,
            interpolate_antialias=interpolate_antialias,
            out_indices=out_indices,
            checkpointing=checkpointing,
        )
        if block_chunks:
            raise ValueError(f"block_chunks must be 0, got {block_chunks}: chunks have no effect")
        check_integer("num_register_tokens", num_register_tokens, most=10_000)
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

    def rename_keys(
        self, tensors: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], str, list[str]]:
        """Rename a checkpoint's tensors to the official keys.

        Parameters
        ----------
        tensors : dict[str, Tensor]
            The tensors by their names in the checkpoint.

        Returns
        -------
        tuple[dict[str, torch.Tensor], str, list[str]]
            See :func:`rename_dinov2`.
        """
        return rename_dinov2(tensors)

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        init_linears(self.blocks)

    def prepare_tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the input of the first block.

        Parameters
        ----------
        images : Tensor
            Images (B, 3, H, W).

        Returns
        -------
        Tensor
            Tokens (B, N, dim): cls, registers, patches.
        """
        tokens = super().prepare_tokens(images)
        if self.register_tokens is None:
            return tokens
        registers = self.register_tokens.expand(images.shape[0], -1, -1)
        return torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)

    def get_intermediate_layers(
        self,
        images: torch.Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple:
        """Return the outputs of some blocks, as the official method of this name does.

        Parameters
        ----------
        images : Tensor
            Images (B, 3, H, W).
        n : int | Sequence[int]
            The last ``n`` blocks, or a list of blocks.
        reshape : bool
            Whether to return maps, not tokens.
        return_class_token : bool
            Whether to return the cls token too.
        norm : bool
            Whether to apply the final LayerNorm.

        Returns
        -------
        tuple of Tensor, or of (Tensor, Tensor)
            For each block, the patch tokens (B, rows * columns, embed_dim), or the map (B,
            embed_dim, rows, columns) if ``reshape`` is True. If ``return_class_token`` is True, a
            pair of these and the cls token (B, embed_dim).

        Raises
        ------
        ValueError
            If a block does not exist.
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
