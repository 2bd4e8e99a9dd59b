"""The segmentation head: pixel decoder and transformer decoder, one after the other."""

from collections.abc import Mapping

from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from .pixel_decoder import by_stride


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Backbone features -> class and mask predictions.

    Parameters
    ----------
    input_shape : Mapping[str, ShapeSpec | Mapping[str, int]]
        The backbone's `output_shape()`, or `{"channels": ..., "stride": ...}` each.
    num_classes : int
        Classes without the no-object class.
    pixel_decoder : nn.Module
        For example `MSDeformAttnPixelDecoder`.
    loss_weight : float
        1.0; losses are weighted by the criterion's `weight_dict`.
    ignore_value : int
        Label of pixels that belong to no class. Deviation: 255, where the published class has -1
        (and its configurations 255).
    transformer_predictor : nn.Module
        For example `MultiScaleMaskedTransformerDecoder`.
    transformer_in_feature : str
        "multi_scale_pixel_decoder" is the only one that the decoder can read.

    Raises
    ------
    NotImplementedError
        For another `loss_weight` or `transformer_in_feature`.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec | Mapping[str, int]],
        *,
        num_classes: int,
        pixel_decoder: nn.Module,
        loss_weight: float = 1.0,
        ignore_value: int = 255,
        transformer_predictor: nn.Module,
        transformer_in_feature: str = "multi_scale_pixel_decoder",
    ):
        super().__init__()
        if loss_weight != 1.0:
            raise NotImplementedError(
                f"loss_weight={loss_weight} is not supported; scale the criterion's weight_dict."
            )
        if transformer_in_feature != "multi_scale_pixel_decoder":
            raise NotImplementedError(
                f"transformer_in_feature={transformer_in_feature!r} is not supported: the decoder "
                'reads three scales; pass "multi_scale_pixel_decoder".'
            )
        self.in_features = list(by_stride(input_shape))
        self.num_classes = num_classes
        self.ignore_value = ignore_value
        self.pixel_decoder = pixel_decoder
        self.predictor = transformer_predictor

    def forward(self, features: Mapping[str, Tensor], mask: Tensor | None = None) -> dict:
        """Maps (N, C, H, W) by name -> the transformer decoder's dictionary of predictions.

        "queries" (Q, C) among them go to the transformer decoder.
        """
        mask_features, _, multi_scale = self.pixel_decoder.forward_features(features)
        return self.predictor(multi_scale, mask_features, mask, features.get("queries"))
