"""The EVA-02 vision transformer as a Detectron2 backbone.

timm's EVA-02 cannot replace this module, because its features differ for most image sizes. Measured
with equal weights (12 blocks, 384 wide, ``img_size=512``, timm 1.0.31), the features for 512x512
pixels agree to 1.3e-6, adapters reach all linear layers, and timm takes 0.95 of the time. The
features differ by 7 % for 512x1024 pixels, 11 % for 480x640 and 54 % for 256x256. timm always
antialiases learned positions in its forward pass, unlike the published segmentors. Its loader also
resamples the patch kernel and the positions of a file differently.
"""

from collections.abc import Sequence

import torch
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from recyclelora.common.validation import check_integer

from .eva02_block import Eva02Block
from .rename_keys import rename_eva02
from .rotary import rotations
from .vision_transformer import VisionTransformer, init_linears


@BACKBONE_REGISTRY.register()
class Eva02VisionTransformer(VisionTransformer):
    """EVA-02 with a pyramid ``res2`` .. ``res5`` of the outputs of four blocks.

    The blocks have pre-norms, rotary positions, separate q, k and v, and a SwiGLU with a LayerNorm
    inside (sub-LN), as in EVA-02 B and L pretrained by masked image modelling. Input, output and
    supported sizes are as in :class:`DinoVisionTransformer`. Learned positions are resampled to the
    grid of the image. Rotary positions are computed in every call; they have no weights.

    State-dict keys are those of baaivision/EVA, except that ``attn.q_bias`` and ``attn.v_bias`` are
    ``attn.q_proj.bias`` and ``attn.v_proj.bias`` as in timm. Every matrix product with a weight is
    an ``nn.Linear`` that is called as a module, so ``recyclelora.adapt`` reaches all of them. The
    model has no pretraining head, mask token or final norm, so the pyramid depends on all
    parameters. ``load_weights`` reads the official files and timm's. Autocast, the meta device and
    ``torch.compile`` are supported.

    Parameters
    ----------
    img_size, patch_size, embed_dim, depth, num_heads, mlp_ratio, interpolate_antialias, \
    layer_norm_eps, out_indices, checkpointing
        See :class:`DinoVisionTransformer`. timm sets ``interpolate_antialias``, but the published
        segmentors do not.
    pt_hw_seq_len : int
        Side of the grid of patches in pretraining, 16 in all released models (224 / 14). The rotary
        positions of an image of any size are stretched over that grid.

    Raises
    ------
    ValueError
        If sizes do not fit.

    Examples
    --------
    >>> model = Eva02VisionTransformer(img_size=64, patch_size=16, embed_dim=24, num_heads=2)
    >>> {level: tuple(f.shape[1:]) for level, f in model(torch.zeros(1, 3, 64, 96)).items()}
    {'res2': (24, 16, 24), 'res3': (24, 8, 12), 'res4': (24, 4, 6), 'res5': (24, 2, 3)}
    """

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
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            interpolate_antialias=interpolate_antialias,
            out_indices=out_indices,
            checkpointing=checkpointing,
        )
        check_integer("pt_hw_seq_len", pt_hw_seq_len, least=1, most=65_536)
        self.head_dim = embed_dim // num_heads
        self.pt_hw_seq_len = pt_hw_seq_len
        self.blocks = nn.ModuleList(
            Eva02Block(embed_dim, num_heads, mlp_ratio=mlp_ratio, layer_norm_eps=layer_norm_eps)
            for _ in range(depth)
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        init_linears(self.blocks)

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
            See :func:`rename_eva02`.
        """
        return rename_eva02(tensors)

    def block_inputs(self, tokens: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        """Return the cosines and sines of the rotary positions.

        Parameters
        ----------
        tokens : Tensor
            Tokens (B, N, dim).
        grid : tuple[int, int]
            Rows and columns of the patches.

        Returns
        -------
        tuple[torch.Tensor, ...]
            One tensor, see :func:`rotations`.
        """
        return (rotations(grid, self.head_dim, trained_side=self.pt_hw_seq_len, like=tokens),)
