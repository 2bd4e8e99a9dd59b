"""Sine position encoding of a feature map."""

import math

import torch
from torch import Tensor, nn


class PositionEmbeddingSine(nn.Module):
    """Half of the channels encode the row, half the column, as sines and cosines in turn.

    Position i of n (counted from 1) has the phase u = 2 pi i / (n + 1e-6) where `normalize`, i
    otherwise; channels 2k and 2k + 1 are sin and cos of u / temperature^(2k / num_pos_feats).

    Args:
        num_pos_feats: channels per axis; the output has twice as many, rows' first.
        temperature: the longest period over 2 pi.
        normalize: count in fractions of the map instead of pixels.
        scale: what a whole map counts as where `normalize`, 2 pi unless told.

    Raises:
        ValueError: `scale` without `normalize`.

    >>> PositionEmbeddingSine(64, normalize=True)(torch.zeros(2, 256, 8, 10)).shape
    torch.Size([1, 128, 8, 10])
    """

    def __init__(
        self,
        num_pos_feats: int = 64,
        temperature: float = 10000,
        normalize: bool = False,
        scale: float | None = None,
    ):
        super().__init__()
        if scale is not None and not normalize:
            raise ValueError("PositionEmbeddingSine: scale needs normalize=True.")
        self.num_pos_feats = num_pos_feats
        self.temperature = temperature
        self.normalize = normalize
        self.scale = 2 * math.pi if scale is None else scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), of which only the size counts -> (1, 2 * num_pos_feats, H, W) float32."""
        h, w = x.shape[-2:]
        # The encoding is separable: H + W rows of sines, not H * W.
        rows = self._axis(h, x.device)[:, :, None].expand(-1, -1, w)
        columns = self._axis(w, x.device)[:, None, :].expand(-1, h, -1)
        return torch.cat([rows, columns])[None]

    def _axis(self, length: int, device: torch.device) -> Tensor:
        position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        if self.normalize:
            position = position / (length + 1e-6) * self.scale
        channel = torch.arange(self.num_pos_feats, dtype=torch.float32, device=device)
        period = self.temperature ** (2 * (channel // 2) / self.num_pos_feats)
        phase = position / period[:, None]
        return torch.where((channel % 2 == 0)[:, None], phase.sin(), phase.cos())
