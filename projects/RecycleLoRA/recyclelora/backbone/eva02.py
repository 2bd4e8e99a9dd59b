"""The EVA-02 vision transformer as a Detectron2 backbone."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from recyclelora.common.validation import check_integer

from .eva02_block import Eva02Block
from .eva02_layouts import to_eva02
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
from .rotary import rotations


@BACKBONE_REGISTRY.register()
class Eva02VisionTransformer(PyramidBackbone):
    """EVA-02, from the outputs of chosen blocks a pyramid ``res2`` .. ``res5``.

    Pre-norm blocks with rotary positions, separate q, k and v, and a SwiGLU with a LayerNorm inside
    (sub-LN): EVA-02 B and L as pretrained by masked image modelling. Called with normalised images
    (B, 3, H, W), it takes the outputs of the blocks ``out_indices`` as maps (B, embed_dim,
    H / patch, W / patch), and resizes them by 4, 2, 1 and 1/2. H and W are any multiples of the
    patch, at least two patches. Learned positions are resampled to the image's grid, rotary ones
    computed for it at every call: they have no weights, so there is nothing to save or to move.

    State-dict keys are those of baaivision/EVA but for ``attn.q_bias`` and ``attn.v_bias``, which
    are ``attn.q_proj.bias`` and ``attn.v_proj.bias`` as in timm: every matrix product with a weight
    is an ``nn.Linear`` called as a module, so ``recyclelora.adapt`` reaches all of them, and no
    pretraining head, mask token or final norm is kept, so everything here acts on the pyramid.
    ``load_weights`` reads the official files and timm's. Works under autocast (the residual stream
    stays in the parameters' dtype), on the meta device, and in ``torch.compile``.

    Args:
        img_size: pixels of the image that ``pos_embed`` covers, one number or (height, width).
        patch_size: pixels of a patch. A pyramid with strides 4, 8, 16, 32 needs 16.
        embed_dim, depth, num_heads, mlp_ratio: the transformer's size.
        pt_hw_seq_len: the side of the grid that rotary positions were trained on. An image of any
            size is stretched over that grid: 16 in all released models (224 / 14).
        interpolate_antialias: whether learned positions are smoothed where they shrink, see
            :func:`resample_position_embedding`; timm does, the segmentors do not.
        layer_norm_eps: of every LayerNorm.
        out_indices: the four blocks that become res2 .. res5, counted from 0. By default those
            after 1/3, 1/2, 2/3 and all of the depth: 7, 11, 15, 23 in EVA-02-L.
        checkpointing: recompute each block in the backward pass instead of keeping its
            activations: the same gradients for less memory and about a third more time.

    Raises:
        ValueError: on sizes that do not fit, in one sentence.

    >>> model = Eva02VisionTransformer(img_size=64, patch_size=16, embed_dim=24, num_heads=2)
    >>> {level: tuple(f.shape[1:]) for level, f in model(torch.zeros(1, 3, 64, 96)).items()}
    {'res2': (24, 16, 24), 'res3': (24, 8, 12), 'res4': (24, 4, 6), 'res5': (24, 2, 3)}
    """

    optional_weights = frozenset[str]()

    @configurable
    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 14,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 8 / 3,
        pt_hw_seq_len: int = 16,
        interpolate_antialias: bool = False,
        layer_norm_eps: float = 1e-6,
        out_indices: Sequence[int] | None = None,
        checkpointing: bool = False,
    ):
        super().__init__()
        check_sizes(patch_size, embed_dim, depth, num_heads, mlp_ratio)
        check_integer("pt_hw_seq_len", pt_hw_seq_len, least=1, most=65_536)
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.head_dim = embed_dim // num_heads
        self.out_indices = pyramid_blocks(out_indices, depth)
        self.pt_hw_seq_len = pt_hw_seq_len
        self.interpolate_antialias = interpolate_antialias
        self.checkpointing = checkpointing

        self.patch_embed = PatchEmbed(img_size, patch_size, embed_dim)
        rows, columns = self.patch_embed.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, embed_dim))
        self.blocks = nn.ModuleList(
            Eva02Block(embed_dim, num_heads, mlp_ratio=mlp_ratio, layer_norm_eps=layer_norm_eps)
            for _ in range(depth)
        )
        self._init_weights()

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """For yacs users: ``cfg.MODEL.EVA02`` holds the constructor's arguments in capitals."""
        return {name.lower(): value for name, value in cfg.MODEL.EVA02.items()}

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        init_linears(self.blocks)

    def read_layout(
        self, tensors: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], str, list[str]]:
        """For :func:`load_weights`: a checkpoint's tensors under this class's names."""
        return to_eva02(tensors)

    def prepare_tokens(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) -> what the first block sees: cls, then patches (B, N, dim)."""
        # Under autocast the patches come in a half precision; the residual stream goes on in full.
        patches = self.patch_embed(images).to(self.pos_embed.dtype)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        return tokens + resample_position_embedding(
            self.pos_embed,
            self.patch_embed.grid,
            patch_grid(images, self.patch_size),
            antialias=self.interpolate_antialias,
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        grid = patch_grid(images, self.patch_size)
        tokens = self.prepare_tokens(images)
        outputs = block_outputs(
            self.blocks,
            tokens,
            rotations(grid, self.head_dim, trained_side=self.pt_hw_seq_len, like=tokens),
            indices=self.out_indices,
            checkpointing=self.checkpointing,
        )
        return feature_pyramid([patch_map(tokens, grid) for tokens in outputs])
