"""Rein (Wei et al., CVPR 2024): learned tokens refine the features after each frozen block."""

import functools
import math

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from recyclelora.common.validation import check_integer

from .checks import check_module


class Rein(Backbone):
    r"""A frozen ViT whose patches are refined after every block, and queries for the decoder.

    Block i has tokens :math:`T_i = A_i B_i`; its patches f become

    .. math:: f + \sigma\,L_f\big(f + S_{2..m}\,L_T(T_i)_{2..m}\big), \quad
              S = \mathrm{softmax}(f T_i^T / \sqrt{d})

    where attention to the first token adds nothing, and all blocks share the linears L and the
    scale :math:`\sigma`. The queries are computed from the tokens: one linear layer is applied to
    each, and another to its maximum and mean over the blocks and its last value. They are returned
    among the features as ``queries`` (tokens, query_dim).

    As published, the refinement does not start at zero: with :math:`\sigma` = 0.001 the features
    are close to the pretrained ones, but not equal. It cannot be merged into the ViT.

    Parameters
    ----------
    module : nn.Module
        A ViT with ``blocks``, ``embed_dim`` and ``patch_size``; it is frozen.
    num_tokens : int
        Number m of tokens of each block, and of queries.
    rank : int
        Rank of a block's tokens.
    query_dim : int
        Width of the decoder.
    prefix_tokens : int
        Number of tokens before the patches (cls, registers), which are not refined.

    Raises
    ------
    TypeError
        If ``module`` is no ViT.
    ValueError
        If a number is out of range, or ``module`` is adapted already.

    Examples
    --------
    >>> from recyclelora.backbone import DinoVisionTransformer
    >>> vit = DinoVisionTransformer(
    ...     img_size=64, patch_size=16, embed_dim=24, depth=4, num_heads=2
    ... )
    >>> features = Rein(vit, num_tokens=10, rank=4, query_dim=32)(torch.zeros(1, 3, 64, 64))
    >>> features["queries"].shape
    torch.Size([10, 32])
    """

    def __init__(
        self,
        module: nn.Module,
        num_tokens: int = 100,
        rank: int = 16,
        query_dim: int = 256,
        prefix_tokens: int = 1,
    ) -> None:
        super().__init__()
        check_module(module, "blocks", "embed_dim", "patch_size")
        check_integer("num_tokens", num_tokens, least=2, most=10_000)
        check_integer("rank", rank, least=1, most=65_536)
        check_integer("query_dim", query_dim, least=1, most=8192)
        check_integer("prefix_tokens", prefix_tokens, most=10_000)
        depth, dim = len(module.blocks), module.embed_dim
        self.prefix_tokens = prefix_tokens
        self.module = module.requires_grad_(False)
        self.tokens_a = nn.Parameter(torch.empty(depth, num_tokens, rank))
        self.tokens_b = nn.Parameter(torch.empty(depth, rank, dim))
        self.scale = nn.Parameter(torch.tensor(0.001))
        self.token_to_feature = nn.Linear(dim, dim)
        self.change = nn.Linear(dim, dim)
        self.token_to_query = nn.Linear(dim, query_dim)
        self.merge_queries = nn.Linear(3 * query_dim, query_dim)
        bound = math.sqrt(6.0 / (3 * module.patch_size**2 + math.sqrt(dim * rank)))
        nn.init.uniform_(self.tokens_a, -bound, bound)
        nn.init.uniform_(self.tokens_b, -bound, bound)
        # With hooks any ViT can be refined, its weights keep their names, and a block that is
        # recomputed in the backward pass is refined again.
        for index, block in enumerate(module.blocks):
            block.register_forward_hook(functools.partial(self._after_block, index))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid of the refined features, and ``queries``."""
        return {**self.module(images), "queries": self.queries()}

    def refined(self, tokens: Tensor, index: int) -> Tensor:
        """Refine the output (B, N, dim) of block ``index``."""
        prefix, patches = tokens[:, : self.prefix_tokens], tokens[:, self.prefix_tokens :]
        learned = self.tokens_a[index] @ self.tokens_b[index]
        similarity = patches @ learned.T / math.sqrt(learned.shape[1])
        attention = similarity.softmax(dim=-1)[..., 1:]
        change = self.change(patches + attention @ self.token_to_feature(learned[1:]))
        return torch.cat([prefix, (patches + self.scale * change).to(prefix.dtype)], dim=1)

    def queries(self) -> Tensor:
        """Queries (num_tokens, query_dim) of the decoder."""
        each = self.token_to_query(self.tokens_a @ self.tokens_b)  # (depth, tokens, query_dim)
        # Maximum, mean and last value of a channel are adjacent, as in the published weights.
        merged = torch.stack([each.amax(dim=0), each.mean(dim=0), each[-1]], dim=-1)
        return self.merge_queries(merged.flatten(1))

    @property
    def size_divisibility(self) -> int:
        """That of the ViT."""
        return self.module.size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        """The pyramid of the ViT, without the queries, which are no map."""
        return self.module.output_shape()

    def _after_block(self, index: int, block: nn.Module, inputs: tuple, tokens: Tensor) -> Tensor:
        return self.refined(tokens, index)
