"""Build a Mask2Former from a backbone and a few sizes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.layers import ShapeSpec
from torch import nn

from recyclelora.common.validation import check_integer

from .criterion import SetCriterion
from .head import MaskFormerHead
from .losses import loss_weights
from .matcher import HungarianMatcher
from .meta_arch import MaskFormer
from .pixel_decoder import MSDeformAttnPixelDecoder
from .transformer_decoder import MultiScaleMaskedTransformerDecoder


def _output_shape(backbone: nn.Module) -> dict[str, ShapeSpec]:
    if not isinstance(backbone, nn.Module) or not hasattr(backbone, "output_shape"):
        raise TypeError(
            "backbone must be a Detectron2 backbone (a module with output_shape()), got "
            f"{type(backbone).__name__}"
        )
    return backbone.output_shape()


def build_segmentor(
    backbone: nn.Module,
    num_classes: int = 19,
    *,
    hidden_dim: int = 256,
    nheads: int = 8,
    enc_layers: int = 6,
    enc_dim_feedforward: int = 1024,
    dec_layers: int = 9,
    dec_dim_feedforward: int = 2048,
    num_queries: int = 100,
    learned_queries: bool = True,
    dropout: float = 0.0,
    num_points: int = 12544,
    oversample_ratio: float = 3.0,
    importance_sample_ratio: float = 0.75,
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
    no_object_weight: float = 0.1,
    head_seed: int | None = None,
    **meta_arch,
) -> MaskFormer:
    """Build `MaskFormer` with the paper's head and losses on a Detectron2 backbone.

    The defaults are the sizes of the paper.

    Parameters
    ----------
    backbone : nn.Module
        A backbone with the features res2 .. res5.
    num_classes : int
        Number of classes without the no-object class.
    hidden_dim : int
        Width of both decoders.
    nheads : int
        Attention heads of both decoders.
    enc_layers, enc_dim_feedforward : int
        Layers of the pixel decoder, and width of their feed-forward networks.
    dec_layers, dec_dim_feedforward : int
        Layers of the transformer decoder, and width of their feed-forward networks.
    num_queries : int
        Number of queries.
    learned_queries : bool
        False if the backbone has "queries" among its features, as Rein does.
    dropout : float
        Dropout of the pixel decoder.
    num_points, oversample_ratio, importance_sample_ratio
        The points of the mask losses, see `SetCriterion`.
    class_weight, mask_weight, dice_weight : float
        Weights of the losses and of the matcher's costs.
    no_object_weight : float
        Weight of the no-object class in the class loss.
    head_seed : int or None
        Seed of the initial weights of the head. None draws them from torch's global generator.
    **meta_arch
        Arguments of `MaskFormer`, such as `pixel_mean`.

    Returns
    -------
    MaskFormer
        The segmentor.

    Raises
    ------
    TypeError
        If `backbone` is not a Detectron2 backbone.
    """
    shape = _output_shape(backbone)
    with _seeded(head_seed):
        pixel_decoder = MSDeformAttnPixelDecoder(
            shape,
            transformer_dropout=dropout,
            transformer_nheads=nheads,
            transformer_dim_feedforward=enc_dim_feedforward,
            transformer_enc_layers=enc_layers,
            conv_dim=hidden_dim,
            mask_dim=hidden_dim,
        )
        predictor = MultiScaleMaskedTransformerDecoder(
            hidden_dim,
            num_classes=num_classes,
            hidden_dim=hidden_dim,
            num_queries=num_queries,
            nheads=nheads,
            dim_feedforward=dec_dim_feedforward,
            dec_layers=dec_layers,
            mask_dim=hidden_dim,
            learned_queries=learned_queries,
        )
    criterion = SetCriterion(
        num_classes,
        matcher=HungarianMatcher(class_weight, mask_weight, dice_weight, num_points),
        weight_dict=loss_weights(class_weight, mask_weight, dice_weight, aux_layers=dec_layers),
        eos_coef=no_object_weight,
        num_points=num_points,
        oversample_ratio=oversample_ratio,
        importance_sample_ratio=importance_sample_ratio,
    )
    head = MaskFormerHead(
        shape, num_classes=num_classes, pixel_decoder=pixel_decoder, transformer_predictor=predictor
    )
    return MaskFormer(backbone=backbone, sem_seg_head=head, criterion=criterion, **meta_arch)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed torch's CPU generator and restore its state afterwards."""
    if seed is None:
        yield
        return
    check_integer("head_seed", seed, most=2**63 - 1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
