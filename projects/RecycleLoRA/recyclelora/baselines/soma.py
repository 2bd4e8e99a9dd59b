"""SoMA (Yun et al., CVPR 2025) trains the minor singular components of the later blocks."""

import torch
from torch import Tensor, nn

from recyclelora.adapters import adapt, adapted_layers
from recyclelora.common.validation import check_integer

from .checks import check_module


class SplitProjection(nn.Module):
    """A fused projection that is split into three linear layers.

    ``q``, ``k`` and ``v`` are (dim, dim). Their parameters are copies of the thirds of the fused
    weight and bias.

    Parameters
    ----------
    fused : nn.Linear
        The linear layer (3 dim, dim).
    """

    def __init__(self, fused: nn.Linear):
        super().__init__()
        weights = fused.weight.detach().chunk(3)
        biases = (None,) * 3 if fused.bias is None else fused.bias.detach().chunk(3)
        self.q, self.k, self.v = map(_linear, weights, biases)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the three projections.

        Parameters
        ----------
        x : Tensor
            Tokens (..., dim).

        Returns
        -------
        Tensor
            q, k and v, concatenated: (..., 3 dim).
        """
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight.clone())
    linear.bias = None if bias is None else nn.Parameter(bias.clone())
    return linear


def soma(module: nn.Module, rank: int = 16, first_block: int = 8) -> nn.Module:
    """Train the smallest singular components of the linear layers in the later blocks.

    W0 = W_res + B A with B = U sqrt(S) and A = sqrt(S) V' of the ``rank`` smallest singular values,
    so the scaling is 1 (alpha = rank). W_res is frozen. A fused ``attn.qkv`` is first split into
    three linear layers. The biases of the adapted layers are trained too. All other parameters, and
    all blocks before ``first_block``, are frozen. The output does not change.

    Parameters
    ----------
    module : nn.Module
        A ViT with ``blocks`` and ``embed_dim`` that is not adapted yet.
    rank : int
        Rank of every adapter.
    first_block : int
        The first block to adapt, counted from 0.

    Returns
    -------
    nn.Module
        ``module``.

    Raises
    ------
    TypeError
        If ``module`` is not a ViT.
    ValueError
        If a number is out of range, or if ``module`` is adapted already. ``module`` is unchanged.

    Examples
    --------
    >>> from recyclelora.backbone import DinoVisionTransformer
    >>> vit = DinoVisionTransformer(
    ...     img_size=64, patch_size=16, embed_dim=24, depth=4, num_heads=2
    ... )
    >>> vit = soma(vit, rank=2, first_block=3)
    >>> [name for name, p in vit.named_parameters() if p.requires_grad][0]
    'blocks.3.attn.qkv.q.lora_A_main'
    """
    check_module(module, "blocks", "embed_dim")
    check_integer("rank", rank, least=1, most=module.embed_dim)
    check_integer("first_block", first_block, most=len(module.blocks) - 1)
    module.requires_grad_(False)
    blocks = module.blocks[first_block:]  # a new list of the same blocks
    for block in blocks:
        if hasattr(block.attn, "qkv"):
            block.attn.qkv = SplitProjection(block.attn.qkv)
    adapt(blocks, r_main=rank, r_sub=0, alpha=float(rank), init="svd")
    for layer in adapted_layers(blocks).values():
        if layer.bias is not None:
            layer.bias.requires_grad_(True)
    return module
