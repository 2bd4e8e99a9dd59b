"""Sine position encoding of a feature map."""

import math

import torch
from torch import Tensor, nn


class PositionEmbeddingSine(nn.Module):
    """Encode rows in one half of the channels and columns in the other, as sines and cosines.

    Position i of n (counted from 1) has the phase u = 2 pi i / (n + 1e-6). Channels 2k and 2k + 1
    are sin and cos of u / 10000^(2k / num_pos_feats).

    Parameters
    ----------
    num_pos_feats : int
        Channels per axis. The output has twice as many, those of the rows first.

    Examples
    --------
    >>> PositionEmbeddingSine(64)(torch.zeros(2, 256, 8, 10)).shape
    torch.Size([1, 128, 8, 10])
    """

    def __init__(self, num_pos_feats: int):
        super().__init__()
        self.num_pos_feats = num_pos_feats

    def forward(self, x: Tensor) -> Tensor:
        """Return the position encoding of a map.

        Parameters
        ----------
        x : Tensor
            A map (N, C, H, W).

        Returns
        -------
        Tensor
            The encoding (1, 2 * num_pos_feats, H, W), float32.
        """
        h, w = x.shape[-2:]
        # The encoding is separable, so H + W rows of sines are enough, instead of H * W.
        rows = self._axis(h, x.device)[:, :, None].expand(-1, -1, w)
        columns = self._axis(w, x.device)[:, None, :].expand(-1, h, -1)
        return torch.cat([rows, columns])[None]

    def _axis(self, length: int, device: torch.device) -> Tensor:
        position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        position = position / (length + 1e-6) * (2 * math.pi)
        channel = torch.arange(self.num_pos_feats, dtype=torch.float32, device=device)
        period = 10000 ** (2 * (channel // 2) / self.num_pos_feats)
        phase = position / period[:, None]
        return torch.where((channel % 2 == 0)[:, None], phase.sin(), phase.cos())
