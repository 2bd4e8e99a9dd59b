"""Multi-scale deformable attention (Zhu et al., Deformable DETR, eq. 3)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recyclelora.ops import ms_deform_attn


class MSDeformAttn(nn.Module):
    """Attend to `n_points` learned positions per head and level around a reference point.

    Parameters
    ----------
    d_model : int
        Channels of queries, values and output.
    n_levels, n_heads, n_points : int
        Levels of the pyramid, heads, and points per head and level.

    Raises
    ------
    ValueError
        If `d_model` is not a multiple of `n_heads`.
    """

    def __init__(self, d_model: int = 256, n_levels: int = 4, n_heads: int = 8, n_points: int = 4):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(
                f"MSDeformAttn: d_model must be a multiple of n_heads, got {d_model} and {n_heads}."
            )
        self.d_model, self.n_levels = d_model, n_levels
        self.n_heads, self.n_points = n_heads, n_points
        self.attend = ms_deform_attn  # exporters use another function with the same values
        self.sampling_offsets = nn.Linear(d_model, n_heads * n_levels * n_points * 2)
        self.attention_weights = nn.Linear(d_model, n_heads * n_levels * n_points)
        self.value_proj = nn.Linear(d_model, d_model)
        self.output_proj = nn.Linear(d_model, d_model)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise the weights as in Deformable DETR.

        The directions of the heads are evenly spaced. Point p has a distance of p + 1 pixels.
        """
        angle = torch.arange(self.n_heads, dtype=torch.float32) * (2 * math.pi / self.n_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        distance = torch.arange(1, self.n_points + 1, dtype=torch.float32)
        offsets = direction[:, None, None] * distance[:, None]
        offsets = offsets.expand(-1, self.n_levels, -1, -1).flatten()
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias.copy_(offsets)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Attend to sampled positions of the memory.

        Parameters
        ----------
        query : Tensor
            (N, Q, d_model).
        reference_points : Tensor
            (Q, 2) as (x, y), 0..1 from edge to edge, the same on every level.
        memory : Tensor
            (N, S, d_model), the flattened maps.
        spatial_shapes : Sequence[tuple[int, int]]
            (H_l, W_l) of each level.

        Returns
        -------
        Tensor
            (N, Q, d_model).
        """
        n, q, _ = query.shape
        heads, levels, points = self.n_heads, self.n_levels, self.n_points
        value = self.value_proj(memory).view(n, -1, heads, self.d_model // heads)
        offsets = self.sampling_offsets(query).view(n, q, heads, levels, points, 2)
        weights = self.attention_weights(query).view(n, q, heads, levels * points)
        weights = weights.softmax(dim=-1).view(n, q, heads, levels, points)
        # new_full, because new_tensor would make sizes constant in an exported program.
        sizes = [offsets.new_full((), side) for h, w in spatial_shapes for side in (w, h)]
        size_xy = torch.stack(sizes).view(levels, 1, 2)
        locations = reference_points[:, None, None, None] + offsets / size_xy
        return self.output_proj(self.attend(value, spatial_shapes, locations, weights))
