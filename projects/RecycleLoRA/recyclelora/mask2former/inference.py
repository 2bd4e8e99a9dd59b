"""From class and mask logits to a map of class scores."""

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits (Q, h, w) -> (Q, *size), bilinear, float32."""
    return F.interpolate(masks[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def semantic_inference(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Sum over queries of class probability times mask probability, no-object left out.

    (Q, num_classes + 1), (Q, H, W) -> (num_classes, H, W) scores, float32 under autocast too.

    Examples
    --------
    >>> semantic_inference(torch.zeros(5, 4), torch.zeros(5, 2, 2)).shape
    torch.Size([3, 2, 2])
    """
    with torch.amp.autocast(mask_logits.device.type, enabled=False):
        classes = class_logits.float().softmax(dim=-1)[:, :-1]
        return torch.einsum("qc,qhw->chw", classes, mask_logits.float().sigmoid())
