"""Convert class and mask logits to a map of class scores."""

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize mask logits bilinearly, in float32.

    Parameters
    ----------
    masks : Tensor
        Logits (Q, h, w).
    size : tuple[int, int]
        Height and width of the result.

    Returns
    -------
    Tensor
        Logits (Q, *size).
    """
    return F.interpolate(masks[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def semantic_inference(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Return the sum over queries of class probability times mask probability.

    The no-object class is left out. The computation uses float32, also under autocast.

    Parameters
    ----------
    class_logits : Tensor
        (Q, num_classes + 1).
    mask_logits : Tensor
        (Q, H, W).

    Returns
    -------
    Tensor
        Scores (num_classes, H, W).

    Examples
    --------
    >>> semantic_inference(torch.zeros(5, 4), torch.zeros(5, 2, 2)).shape
    torch.Size([3, 2, 2])
    """
    with torch.amp.autocast(mask_logits.device.type, enabled=False):
        classes = class_logits.float().softmax(dim=-1)[:, :-1]
        return torch.einsum("qc,qhw->chw", classes, mask_logits.float().sigmoid())
