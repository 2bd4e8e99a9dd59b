"""One transformer block of EVA-02: rotary attention and a SwiGLU with a norm inside."""

import torch
from torch import nn
from torch.nn import functional as F

from .rotary import rotate


class RotaryAttention(nn.Module):
    """Self-attention that rotates queries and keys by the positions of their patches.

    ``q_proj``, ``k_proj``, ``v_proj`` and ``proj`` are (dim, dim). Keys have no bias, because it
    would shift all logits of a query equally.

    Parameters
    ----------
    dim : int
        Width of the tokens.
    num_heads : int
        Number of heads.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if dim % (4 * num_heads):
            raise ValueError(
                "embed_dim must be a multiple of 4 * num_heads, because rotary positions use pairs "
                f"of channels for both axes, got {dim} and {num_heads}: change one of them"
            )
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
        """Apply self-attention.

        Parameters
        ----------
        tokens : Tensor
            (B, N, dim).
        cos_sin : Tensor
            Cosines and sines of the positions, see :func:`rotations`.

        Returns
        -------
        Tensor
            (B, N, dim).
        """
        query, key, value = (
            projection(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(rotate(query, cos_sin), rotate(key, cos_sin), value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class SubLNSwiGLU(nn.Module):
    """SwiGLU with a norm inside: ``w3(ffn_ln(silu(w1(x)) * w2(x)))``.

    Parameters
    ----------
    dim : int
        Width of the tokens.
    hidden : int
        Width of the hidden layer.
    layer_norm_eps : float
        Epsilon of the LayerNorm.
    """

    def __init__(self, dim: int, hidden: int, layer_norm_eps: float):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(dim, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=layer_norm_eps)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the network to tokens (..., dim)."""
        return self.w3(self.ffn_ln(F.silu(self.w1(tokens)) * self.w2(tokens)))


class Eva02Block(nn.Module):
    """Pre-norm block without LayerScale: ``x + attn(norm1(x))``, then ``x + mlp(norm2(x))``.

    Parameters
    ----------
    dim, num_heads, mlp_ratio, layer_norm_eps
        See :class:`DinoVisionTransformer`, whose ``embed_dim`` is ``dim``.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, layer_norm_eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.attn = RotaryAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = SubLNSwiGLU(dim, int(dim * mlp_ratio), layer_norm_eps)

    def forward(self, tokens: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
        """Apply the block.

        Parameters
        ----------
        tokens : Tensor
            (B, N, dim).
        cos_sin : Tensor
            Cosines and sines of the positions, see :func:`rotations`.

        Returns
        -------
        Tensor
            (B, N, dim).
        """
        tokens = tokens + self.attn(self.norm1(tokens), cos_sin)
        return tokens + self.mlp(self.norm2(tokens))
