"""The transformer decoder with masked attention (Cheng et al., Mask2Former, section 3.2.1)."""

from collections.abc import Sequence
from itertools import pairwise

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.common.validation import check_integer

from .attention import MultiHeadAttention
from .pixel_decoder import NUM_SCALES
from .position_encoding import PositionEmbeddingSine


class CrossAttentionLayer(nn.Module):
    """Let queries attend to a feature map inside their masks (Mask2Former, eq. 2).

    Parameters
    ----------
    d_model, n_heads : int
        Channels and heads.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.multihead_attn = MultiHeadAttention(d_model, n_heads)
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self, x: Tensor, x_position: Tensor, memory: Tensor, position: Tensor, allowed: Tensor
    ) -> Tensor:
        """Apply attention, a residual connection and a norm.

        Parameters
        ----------
        x, x_position : Tensor
            Queries and their positions (N, Q, C).
        memory, position : Tensor
            The flattened map and its position encoding (N, S, C).
        allowed : Tensor
            (N, Q, S) bool, True where a query may attend.

        Returns
        -------
        Tensor
            Queries (N, Q, C).
        """
        return self.norm(
            x + self.multihead_attn(x + x_position, memory + position, memory, allowed)
        )


class SelfAttentionLayer(nn.Module):
    """Let queries attend to each other.

    Parameters
    ----------
    d_model, n_heads : int
        Channels and heads.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.self_attn = MultiHeadAttention(d_model, n_heads)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, x_position: Tensor) -> Tensor:
        """Apply attention, a residual connection and a norm.

        Parameters
        ----------
        x, x_position : Tensor
            Queries and their positions (N, Q, C).

        Returns
        -------
        Tensor
            Queries (N, Q, C).
        """
        query = x + x_position
        return self.norm(x + self.self_attn(query, query, x))


class FFNLayer(nn.Module):
    """Two linear layers with a ReLU between them, a residual connection and a norm.

    Parameters
    ----------
    d_model, dim_feedforward : int
        Channels outside and inside.
    """

    def __init__(self, d_model: int, dim_feedforward: int):
        super().__init__()
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm = nn.LayerNorm(d_model)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to queries (N, Q, C)."""
        return self.norm(x + self.linear2(F.relu(self.linear1(x))))


class MLP(nn.Module):
    """Linear layers with a ReLU between each two of them.

    Parameters
    ----------
    input_dim, hidden_dim, output_dim : int
        Channels.
    num_layers : int
        Number of linear layers.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def _check_supported(mask_classification: bool, pre_norm: bool) -> None:
    if not mask_classification:
        raise NotImplementedError(
            "mask_classification=False is not supported: the decoder classifies masks; pass True."
        )
    if pre_norm:
        raise NotImplementedError(
            "pre_norm=True is not supported: in the paper's decoder a norm follows each layer; "
            "pass False."
        )


class MultiScaleMaskedTransformerDecoder(nn.Module):
    """Transformer decoder whose queries attend to three scales in turn, inside their last masks.

    A layer consists of cross-attention, self-attention and a feed-forward network, each followed by
    a norm. Predictions are made from the queries before the first layer and after every layer.

    Parameters
    ----------
    in_channels : int
        Channels of the three maps.
    mask_classification : bool
        Must be True; per-pixel classification is not supported.
    num_classes : int
        Number of classes without the no-object class, which is the last logit.
    hidden_dim, nheads, dim_feedforward, dec_layers, num_queries : int
        Sizes; 256, 8, 2048, 9 and 100 in the paper. `dec_layers` is the number of layers.
        DEC_LAYERS in the published configuration is the number of predictions, which is one more.
    pre_norm : bool
        Must be False; norms before the layers are not supported.
    mask_dim : int
        Channels of the mask features.
    enforce_input_project : bool
        Whether to project maps that already have `hidden_dim` channels.
    learned_queries : bool
        Whether the queries are parameters of the decoder, as published. If False, they are an
        argument of `forward`. They are then the positions of the queries, and a linear layer
        computes the features of the queries from them (Rein's decoder).

    Raises
    ------
    NotImplementedError
        If `mask_classification` is False or `pre_norm` is True.
    """

    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        num_classes: int,
        hidden_dim: int = 256,
        num_queries: int = 100,
        nheads: int = 8,
        dim_feedforward: int = 2048,
        dec_layers: int = 9,
        pre_norm: bool = False,
        mask_dim: int = 256,
        enforce_input_project: bool = False,
        learned_queries: bool = True,
    ):
        super().__init__()
        _check_supported(mask_classification, pre_norm)
        check_integer("num_classes", num_classes, least=1, most=10_000)
        check_integer("num_queries", num_queries, least=1, most=10_000)
        check_integer("hidden_dim", hidden_dim, least=1, most=8192)
        check_integer("nheads", nheads, least=1, most=1024)
        check_integer("dec_layers", dec_layers, least=1, most=100)
        check_integer("dim_feedforward", dim_feedforward, least=1, most=65_536)
        if hidden_dim % (2 * nheads):
            raise ValueError(
                f"hidden_dim: expected an even multiple of nheads, got {hidden_dim} and {nheads}."
            )
        self.num_queries = num_queries
        self.pe_layer = PositionEmbeddingSine(hidden_dim // 2)
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, nheads) for _ in range(dec_layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, nheads) for _ in range(dec_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim, dim_feedforward) for _ in range(dec_layers)
        )
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        if learned_queries:
            self.query_feat = nn.Embedding(num_queries, hidden_dim)
            self.query_embed = nn.Embedding(num_queries, hidden_dim)
        else:
            self.query_transform = nn.Linear(hidden_dim, hidden_dim)
        self.learned_queries = learned_queries
        self.level_embed = nn.Embedding(NUM_SCALES, hidden_dim)
        self.input_proj = nn.ModuleList()
        for _ in range(NUM_SCALES):
            if in_channels == hidden_dim and not enforce_input_project:
                self.input_proj.append(nn.Identity())
            else:
                self.input_proj.append(Conv2d(in_channels, hidden_dim, kernel_size=1))
                weight_init.c2_xavier_fill(self.input_proj[-1])
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)

    def forward(
        self,
        x: Sequence[Tensor],
        mask_features: Tensor,
        mask: Tensor | None = None,
        queries: Tensor | None = None,
    ) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        """Predict classes and masks from the queries.

        Parameters
        ----------
        x : Sequence[Tensor]
            Three maps (N, in_channels, H_l, W_l), stride 32 first.
        mask_features : Tensor
            (N, mask_dim, H, W).
        mask : Tensor or None
            Padding; ignored, as in the published code.
        queries : Tensor or None
            (Q, hidden_dim), only if `learned_queries` is False.

        Returns
        -------
        dict[str, Tensor or list[dict[str, Tensor]]]
            "pred_logits" (N, Q, num_classes + 1), "pred_masks" (N, Q, H, W) logits, and
            "aux_outputs", a list of the same two for every earlier prediction.

        Raises
        ------
        ValueError
            If there are not three maps, or if `queries` does not match `learned_queries`.
        """
        if len(x) != NUM_SCALES:
            raise ValueError(f"expected {NUM_SCALES} feature maps, stride 32 first, got {len(x)}.")
        sizes = [level.shape[-2:] for level in x]
        position = [self.pe_layer(level).flatten(2).transpose(1, 2) for level in x]
        memory = [
            project(level).flatten(2).transpose(1, 2) + embedding
            for project, level, embedding in zip(
                self.input_proj, x, self.level_embed.weight, strict=True
            )
        ]
        query_features, query_position = self._queries(queries)
        queries = query_features[None].expand(mask_features.shape[0], -1, -1)
        query_position = query_position[None]

        logits, masks, blocked = self.forward_prediction_heads(queries, mask_features, sizes[0])
        predictions = [{"pred_logits": logits, "pred_masks": masks}]
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for i, (cross_attention, self_attention, ffn) in enumerate(layers):
            level = i % NUM_SCALES
            # A query whose mask is empty at this scale attends to all positions.
            allowed = ~blocked | blocked.all(dim=-1, keepdim=True)
            queries = cross_attention(
                queries, query_position, memory[level], position[level], allowed
            )
            queries = ffn(self_attention(queries, query_position))
            logits, masks, blocked = self.forward_prediction_heads(
                queries, mask_features, sizes[(i + 1) % NUM_SCALES]
            )
            predictions.append({"pred_logits": logits, "pred_masks": masks})
        return {**predictions[-1], "aux_outputs": predictions[:-1]}

    def _queries(self, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the features and the positions of the queries, (Q, C) each."""
        if self.learned_queries != (given is None):
            expected = "no queries, got some" if self.learned_queries else "queries, got none"
            raise ValueError(
                f"the decoder expects {expected}: set learned_queries=False if, and only if, the "
                'backbone has "queries" among its features'
            )
        if given is None:
            return self.query_feat.weight, self.query_embed.weight
        return self.query_transform(given), given

    def forward_prediction_heads(
        self, output: Tensor, mask_features: Tensor, attn_mask_target_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict classes and masks from queries (Mask2Former, eq. 3).

        Parameters
        ----------
        output : Tensor
            Queries (N, Q, C).
        mask_features : Tensor
            (N, mask_dim, H, W).
        attn_mask_target_size : tuple[int, int]
            Height and width of the map of the next layer.

        Returns
        -------
        logits : Tensor
            Class logits (N, Q, num_classes + 1).
        masks : Tensor
            Mask logits (N, Q, H, W).
        blocked : Tensor
            (N, Q, h * w) bool, True where the next layer must not attend.
        """
        output = self.decoder_norm(output)
        logits = self.class_embed(output)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(output), mask_features)
        with torch.no_grad():
            resized = F.interpolate(
                masks, size=attn_mask_target_size, mode="bilinear", align_corners=False
            )
            blocked = resized.flatten(2).sigmoid() < 0.5
        return logits, masks, blocked
