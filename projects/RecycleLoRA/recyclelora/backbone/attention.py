"""Multi-head self-attention of a plain vision transformer."""

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention with one fused projection for queries, keys and values.

    ``qkv.weight`` is (3 * dim, dim): queries first, then keys, then values, each split into heads.
    ``proj.weight`` is (dim, dim). Both projections are ``nn.Linear`` layers that are called as
    modules, so they can be adapted.

    Parameters
    ----------
    dim : int
        Width of the tokens.
    num_heads : int
        Number of heads.
    qkv_bias, proj_bias : bool
        Whether the projections have a bias.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, proj_bias: bool = True):
        super().__init__()
        if dim % num_heads:
            raise ValueError(
                f"embed_dim must be a multiple of num_heads, got {dim} and {num_heads}: "
                f"change one of them"
            )
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply self-attention.

        Parameters
        ----------
        tokens : Tensor
            (B, N, dim).

        Returns
        -------
        Tensor
            (B, N, dim).
        """
        batch, length, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, dim))
