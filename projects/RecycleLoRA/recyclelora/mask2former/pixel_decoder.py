"""The pixel decoder: a deformable encoder over strides 32, 16, 8 and an FPN up to stride 4."""

from collections.abc import Callable, Mapping, Sequence
from math import log2

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.backbone.pyramid import CoarseMap, resize_map
from recyclelora.common.validation import check_integer

from .ms_deform_attn import MSDeformAttn
from .position_encoding import PositionEmbeddingSine

NUM_SCALES = 3  # the transformer decoder reads three scales


def by_stride(input_shape: Mapping[str, ShapeSpec | Mapping[str, int]]) -> dict[str, ShapeSpec]:
    """Sort the features of a backbone by stride.

    Parameters
    ----------
    input_shape : Mapping[str, ShapeSpec | Mapping[str, int]]
        The result of `Backbone.output_shape()`, or `{"channels": c, "stride": s}` for each feature.

    Returns
    -------
    dict[str, ShapeSpec]
        The shapes, in ascending order of stride.

    Raises
    ------
    ValueError
        If a feature has no channels or stride.

    Examples
    --------
    >>> list(by_stride({"res3": {"channels": 8, "stride": 8}, "res2": ShapeSpec(4, stride=4)}))
    ['res2', 'res3']
    """
    shapes = {
        name: ShapeSpec(channels=spec.get("channels"), stride=spec.get("stride"))
        if isinstance(spec, Mapping)
        else spec
        for name, spec in input_shape.items()
    }
    for name, spec in shapes.items():
        if not getattr(spec, "channels", None) or not getattr(spec, "stride", None):
            raise ValueError(
                f"input_shape[{name!r}]: expected channels and stride, got {spec}; "
                "pass the backbone's output_shape()."
            )
    return dict(sorted(shapes.items(), key=lambda item: item[1].stride))


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each followed by a norm.

    Parameters
    ----------
    d_model, d_ffn : int
        Width of the tokens and of the feed-forward network.
    dropout : float
        Dropout probability.
    n_levels, n_heads : int
        Levels of the pyramid, and attention heads.
    """

    def __init__(self, d_model: int, d_ffn: int, dropout: float, n_levels: int, n_heads: int):
        super().__init__()
        self.self_attn = MSDeformAttn(d_model, n_levels, n_heads)
        self.norm1 = nn.LayerNorm(d_model)
        self.linear1 = nn.Linear(d_model, d_ffn)
        self.linear2 = nn.Linear(d_ffn, d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Refine the tokens of all levels.

        Parameters
        ----------
        x : Tensor
            Tokens (N, S, d_model).
        position : Tensor
            Position encoding (N, S, d_model).
        reference_points : Tensor
            (S, 2), the centres of the tokens.
        spatial_shapes : Sequence[tuple[int, int]]
            (H_l, W_l) of each level.

        Returns
        -------
        Tensor
            Tokens (N, S, d_model).
        """
        attended = self.self_attn(x + position, reference_points, x, spatial_shapes)
        x = self.norm1(x + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class DeformableEncoder(nn.Module):
    """Exchange information within and between the levels of a pyramid.

    Parameters
    ----------
    d_model, n_heads, num_layers, dim_feedforward, dropout, n_levels
        Sizes, see :class:`DeformableEncoderLayer`.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        num_layers: int,
        dim_feedforward: int,
        dropout: float,
        n_levels: int,
    ):
        super().__init__()
        layers = [
            DeformableEncoderLayer(d_model, dim_feedforward, dropout, n_levels, n_heads)
            for _ in range(num_layers)
        ]
        # The dictionary reproduces the official keys, `encoder.layers.0...`.
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.level_embed = nn.Parameter(torch.empty(n_levels, d_model))
        nn.init.normal_(self.level_embed)
        self.position = PositionEmbeddingSine(d_model // 2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Refine the maps of all levels.

        Parameters
        ----------
        maps : Sequence[Tensor]
            Maps (N, d_model, H_l, W_l).

        Returns
        -------
        list[Tensor]
            Maps of the same shapes.
        """
        shapes = [tuple(m.shape[-2:]) for m in maps]
        x = torch.cat([_tokens(m) for m in maps], dim=1)
        embeddings = zip(maps, self.level_embed, strict=True)
        position = torch.cat([_tokens(self.position(m)) + e for m, e in embeddings], dim=1)
        reference = torch.cat([_pixel_centres(h, w, x.device) for h, w in shapes])
        for layer in self.encoder["layers"]:
            x = layer(x, position, reference, shapes)
        levels = x.split([h * w for h, w in shapes], dim=1)
        return [
            level.transpose(1, 2).reshape(m.shape) for level, m in zip(levels, maps, strict=True)
        ]


def _tokens(feature_map: Tensor) -> Tensor:
    return feature_map.flatten(2).transpose(1, 2)


def _pixel_centres(h: int, w: int, device: torch.device) -> Tensor:
    """Return the centres of the pixels, (h * w, 2) as (x, y), 0..1 from edge to edge."""
    y = (torch.arange(h, dtype=torch.float32, device=device) + 0.5) / h
    x = (torch.arange(w, dtype=torch.float32, device=device) + 0.5) / w
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1).flatten(0, 1)


@SEM_SEG_HEADS_REGISTRY.register()
class MSDeformAttnPixelDecoder(nn.Module):
    """Multi-scale deformable attention pixel decoder (Cheng et al., Mask2Former, section 3.2.2).

    Parameters
    ----------
    input_shape : Mapping[str, ShapeSpec or Mapping[str, int]]
        The backbone's `output_shape()`, or `{"channels": ..., "stride": ...}` for each feature.
    transformer_dropout : float
        Dropout of the deformable encoder; 0.0 in the paper.
    transformer_nheads, transformer_dim_feedforward, transformer_enc_layers : int
        Sizes of the deformable encoder; 8, 1024 and 6 in the paper.
    conv_dim : int
        Channels of every map inside, a multiple of 32 (GroupNorm).
    mask_dim : int
        Channels of the mask features.
    norm : str or Callable or None
        Norm of the FPN's convolutions, an argument of Detectron2's `get_norm`; "" for no norm.
    transformer_in_features : Sequence[str]
        Names of the maps that the encoder reads.
    common_stride : int
        Stride of the mask features. An FPN adds maps that are finer than those of the encoder.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec | Mapping[str, int]],
        *,
        transformer_dropout: float = 0.0,
        transformer_nheads: int = 8,
        transformer_dim_feedforward: int = 1024,
        transformer_enc_layers: int = 6,
        conv_dim: int = 256,
        mask_dim: int = 256,
        norm: str | Callable | None = "GN",
        transformer_in_features: Sequence[str] = ("res3", "res4", "res5"),
        common_stride: int = 4,
    ):
        super().__init__()
        check_integer("conv_dim", conv_dim, least=32, most=8192)
        check_integer("mask_dim", mask_dim, least=1, most=8192)
        check_integer("nheads", transformer_nheads, least=1, most=1024)
        check_integer("enc_layers", transformer_enc_layers, least=1, most=100)
        check_integer("enc_dim_feedforward", transformer_dim_feedforward, least=1, most=65_536)
        shapes = by_stride(input_shape)
        missing = [name for name in transformer_in_features if name not in shapes]
        if missing:
            raise ValueError(
                f"transformer_in_features: {missing} are not among the backbone's {list(shapes)}."
            )
        if conv_dim % 32:
            raise ValueError(f"conv_dim: expected a multiple of 32 (GroupNorm), got {conv_dim}.")
        # Coarse to fine, the order of the levels in the encoder.
        encoded = [name for name in shapes if name in set(transformer_in_features)][::-1]
        self.in_features = list(shapes)
        self.transformer_in_features = encoded[::-1]
        self.input_proj = nn.ModuleList(
            _projection(shapes[name].channels, conv_dim) for name in encoded
        )
        self.transformer = DeformableEncoder(
            conv_dim,
            transformer_nheads,
            transformer_enc_layers,
            transformer_dim_feedforward,
            transformer_dropout,
            n_levels=len(encoded),
        )
        self.mask_dim = mask_dim
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.mask_features)

        self.num_fpn_levels = int(log2(shapes[encoded[-1]].stride) - log2(common_stride))
        for i, name in enumerate(self.in_features[: self.num_fpn_levels], start=1):
            lateral, output = _fpn_convs(shapes[name].channels, conv_dim, norm)
            self.add_module(f"adapter_{i}", lateral)
            self.add_module(f"layer_{i}", output)

    def forward_features(
        self, features: Mapping[str, Tensor | CoarseMap]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Compute the mask features and the maps for the transformer decoder.

        The computation uses float32, also under autocast, because the sampling positions need this
        precision.

        Parameters
        ----------
        features : Mapping[str, Tensor or CoarseMap]
            Maps (N, C, H, W) by name.

        Returns
        -------
        mask_features : Tensor
            (N, mask_dim, H / 4, W / 4).
        coarsest : Tensor
            The coarsest map of the encoder.
        maps : list of Tensor
            The three coarsest maps (N, conv_dim, ...), stride 32 first.
        """
        device_type = self.mask_features.weight.device.type
        with torch.amp.autocast(device_type, enabled=False):
            coarse_to_fine = self.transformer_in_features[::-1]
            maps = [
                _projected(*project, features[name])
                for project, name in zip(self.input_proj, coarse_to_fine, strict=True)
            ]
            maps = self.transformer(maps)
            for i in range(self.num_fpn_levels, 0, -1):
                adapter = getattr(self, f"adapter_{i}")
                lateral = _projected(adapter, adapter.norm, features[self.in_features[i - 1]])
                above = F.interpolate(
                    maps[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False
                )
                maps.append(getattr(self, f"layer_{i}")(lateral + above))
            return self.mask_features(maps[-1]), maps[0], maps[:NUM_SCALES]


def _projection(in_channels: int, conv_dim: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, conv_dim, kernel_size=1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.GroupNorm(32, conv_dim))


def _projected(conv: nn.Conv2d, norm: nn.Module | None, feature: Tensor | CoarseMap) -> Tensor:
    """Apply a convolution with a kernel of one pixel, enlarge a coarse map, and apply the norm."""
    feature, scale = (feature, 1.0) if isinstance(feature, Tensor) else feature
    x = resize_map(F.conv2d(feature.float(), conv.weight, conv.bias), scale)
    return x if norm is None else norm(x)


def _fpn_convs(
    in_channels: int, conv_dim: int, norm: str | Callable | None
) -> tuple[Conv2d, Conv2d]:
    bias = norm == ""
    lateral = Conv2d(in_channels, conv_dim, 1, bias=bias, norm=get_norm(norm, conv_dim))
    output = Conv2d(
        conv_dim,
        conv_dim,
        3,
        padding=1,
        bias=bias,
        norm=get_norm(norm, conv_dim),
        activation=F.relu,
    )
    weight_init.c2_xavier_fill(lateral)
    weight_init.c2_xavier_fill(output)
    return lateral, output
