"""One transformer block of DINOv2: attention, feed-forward, LayerScale."""

import torch
from torch import nn
from torch.nn import functional as F

from .attention import Attention


class LayerScale(nn.Module):
    """Multiply each channel by a learned factor ``gamma`` (dim,).

    Parameters
    ----------
    dim : int
        Number of channels.
    init_value : float
        Initial value of the factors.
    """

    def __init__(self, dim: int, init_value: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init_value)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scale the channels of tokens (..., dim)."""
        return tokens * self.gamma


class Mlp(nn.Module):
    """The feed-forward network of ViT-S, B and L: ``fc2(gelu(fc1(x)))``.

    Parameters
    ----------
    dim : int
        Width of the tokens.
    hidden : int
        Width of the hidden layer.
    bias : bool
        Whether the linear layers have a bias.
    """

    def __init__(self, dim: int, hidden: int, bias: bool = True):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, dim, bias=bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the network to tokens (..., dim)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class SwiGLUFFN(nn.Module):
    """The feed-forward network of ViT-g: ``w3(silu(a) * b)`` with ``[a, b] = w12(x)``.

    Two thirds of the nominal ``hidden`` width are kept, rounded up to a multiple of 8. The three
    matrices then have as many parameters as the two of an :class:`Mlp`.

    Parameters
    ----------
    dim : int
        Width of the tokens.
    hidden : int
        Nominal width of the hidden layer.
    bias : bool
        Whether the linear layers have a bias.
    """

    def __init__(self, dim: int, hidden: int, bias: bool = True):
        super().__init__()
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(dim, 2 * hidden, bias=bias)
        self.w3 = nn.Linear(hidden, dim, bias=bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the network to tokens (..., dim)."""
        gate, value = self.w12(tokens).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


# The official code has two names for one layer. "fused" was a faster kernel of the same function.
FEED_FORWARDS = {"mlp": Mlp, "swiglu": SwiGLUFFN, "swiglufused": SwiGLUFFN}


class Block(nn.Module):
    """Pre-norm block: ``x + ls1(attn(norm1(x)))``, then ``x + ls2(mlp(norm2(x)))``.

    Parameters
    ----------
    dim, num_heads, mlp_ratio, qkv_bias, proj_bias, ffn_bias, ffn_layer, layer_norm_eps
        See :class:`DinoVisionTransformer`, whose ``embed_dim`` is ``dim``.
    init_values : float or None
        Initial factor of LayerScale. None or 0 omits LayerScale.

    Raises
    ------
    ValueError
        If ``ffn_layer`` is unknown.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        ffn_bias: bool = True,
        ffn_layer: str = "mlp",
        init_values: float | None = None,
        layer_norm_eps: float = 1e-6,
    ):
        super().__init__()
        if ffn_layer not in FEED_FORWARDS:
            raise ValueError(f"ffn_layer must be one of {sorted(FEED_FORWARDS)}, got {ffn_layer!r}")
        self.norm1 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, proj_bias=proj_bias)
        self.ls1 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.mlp = FEED_FORWARDS[ffn_layer](dim, int(dim * mlp_ratio), bias=ffn_bias)
        self.ls2 = LayerScale(dim, init_values) if init_values else nn.Identity()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the block to tokens (B, N, dim)."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))
