"""Multi-head attention of the transformer decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiHeadAttention(nn.Module):
    """Multi-head attention with the parameters of `nn.MultiheadAttention`, batch first.

    It computes softmax(M + Q K' / sqrt(d)) V. `nn.MultiheadAttention` needs one copy of the mask
    per head, and averages attention weights that are not used here.

    Parameters
    ----------
    d_model, n_heads : int
        Channels and heads.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d_model, d_model))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * d_model))
        self.out_proj = nn.Linear(d_model, d_model)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None
    ) -> Tensor:
        """Attend to the keys.

        Parameters
        ----------
        query : Tensor
            (N, Q, C).
        key, value : Tensor
            (N, S, C).
        allowed : Tensor or None
            (N, Q, S) bool, True where a query may attend. None allows all positions.

        Returns
        -------
        Tensor
            (N, Q, C).
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        mask = None if allowed is None else allowed[:, None]
        attended = _attend(q, k, v, mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the attention; on the CPU in float32, which is faster for heads this narrow.

    The backward pass of PyTorch's kernel takes 2 to 20 times as long in bfloat16.
    """
    if q.device.type != "cpu" or q.dtype not in (torch.bfloat16, torch.float16):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        wide = (x.float() for x in (q, k, v))
        return F.scaled_dot_product_attention(*wide, attn_mask=mask).to(q.dtype)
