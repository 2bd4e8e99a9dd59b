"""The segmentation head: pixel decoder and transformer decoder, one after the other."""

from collections.abc import Mapping

from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from .pixel_decoder import by_stride


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Predict classes and masks from the features of a backbone.

    Parameters
    ----------
    input_shape : Mapping[str, ShapeSpec or Mapping[str, int]]
        The backbone's `output_shape()`, or `{"channels": ..., "stride": ...}` for each feature.
    num_classes : int
        Number of classes without the no-object class.
    pixel_decoder : nn.Module
        For example `MSDeformAttnPixelDecoder`.
    loss_weight : float
        1.0. The criterion's `weight_dict` has the weights of the losses.
    ignore_value : int
        Label of pixels that belong to no class. Deviation: 255, whereas the published class has -1
        (and its configurations 255).
    transformer_predictor : nn.Module
        For example `MultiScaleMaskedTransformerDecoder`.
    transformer_in_feature : str
        The decoder supports only "multi_scale_pixel_decoder".

    Raises
    ------
    NotImplementedError
        If `loss_weight` or `transformer_in_feature` has another value.
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
                f"loss_weight={loss_weight} is not supported: scale the criterion's weight_dict."
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
        """Predict classes and masks.

        Parameters
        ----------
        features : Mapping[str, Tensor]
            Maps (N, C, H, W) by name. "queries" (Q, C) among them are passed to the transformer
            decoder.
        mask : Tensor or None
            Padding; ignored, as in the published code.

        Returns
        -------
        dict
            The predictions of the transformer decoder.
        """
        mask_features, _, multi_scale = self.pixel_decoder.forward_features(features)
        return self.predictor(multi_scale, mask_features, mask, features.get("queries"))
