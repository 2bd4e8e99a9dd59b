"""Rein (Wei et al., CVPR 2024) refines the features after each frozen block by learned tokens."""

import functools
import math

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from recyclelora.common.validation import check_integer

from .checks import check_module


class Rein(Backbone):
    r"""Refine the patches of a frozen ViT after every block, and compute queries for the decoder.

    Block i has tokens :math:`T_i = A_i B_i`. Its patches f become

    .. math:: f + \sigma\,L_f(f + S_{2..m}\,L_T(T_i)_{2..m}), \quad
              S = \mathrm{softmax}(f T_i^T / \sqrt{d})

    Attention to the first token adds nothing. All blocks share the linear layers L and the scale
    :math:`\sigma`. The queries are computed from the tokens. One linear layer is applied to the
    tokens of each block, and another to their maximum, their mean and the last of them. The
    features contain the result as ``queries`` (num_tokens, query_dim).

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
        If ``module`` is not a ViT.
    ValueError
        If a number is out of range, or if ``module`` is adapted already.

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
        # Hooks work for any ViT, keep the names of its weights, and also refine a block that is
        # recomputed in the backward pass.
        for index, block in enumerate(module.blocks):
            block.register_forward_hook(functools.partial(self._after_block, index))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the pyramid of the refined features, and the queries.

        Parameters
        ----------
        images : Tensor
            Images (B, 3, H, W).

        Returns
        -------
        dict[str, Tensor]
            The maps res2 .. res5, and "queries".
        """
        return {**self.module(images), "queries": self.queries()}

    def refined(self, tokens: Tensor, index: int) -> Tensor:
        """Refine the output of a block.

        Parameters
        ----------
        tokens : Tensor
            Output (B, N, dim) of the block.
        index : int
            Index of the block.

        Returns
        -------
        Tensor
            Tokens (B, N, dim).
        """
        prefix, patches = tokens[:, : self.prefix_tokens], tokens[:, self.prefix_tokens :]
        learned = self.tokens_a[index] @ self.tokens_b[index]
        similarity = patches @ learned.T / math.sqrt(learned.shape[1])
        attention = similarity.softmax(dim=-1)[..., 1:]
        change = self.change(patches + attention @ self.token_to_feature(learned[1:]))
        return torch.cat([prefix, (patches + self.scale * change).to(prefix.dtype)], dim=1)

    def queries(self) -> Tensor:
        """Compute the queries of the decoder.

        Returns
        -------
        Tensor
            Queries (num_tokens, query_dim).
        """
        each = self.token_to_query(self.tokens_a @ self.tokens_b)  # (depth, tokens, query_dim)
        # The maximum, mean and last value of a channel are adjacent, as in the published weights.
        merged = torch.stack([each.amax(dim=0), each.mean(dim=0), each[-1]], dim=-1)
        return self.merge_queries(merged.flatten(1))

    @property
    def size_divisibility(self) -> int:
        """Divisor of the sides of an image, the same as that of the ViT."""
        return self.module.size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the channels and strides of the pyramid, which does not include the queries.

        Returns
        -------
        dict[str, ShapeSpec]
            The shapes by name.
        """
        return self.module.output_shape()

    def _after_block(self, index: int, block: nn.Module, inputs: tuple, tokens: Tensor) -> Tensor:
        return self.refined(tokens, index)
