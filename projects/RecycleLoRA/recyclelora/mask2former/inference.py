"""Convert class and mask logits to a map of class scores."""

import torch
from detectron2.modeling.postprocessing import sem_seg_postprocess
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


def resize_scores(scores: Tensor, image_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Remove the padding of scores or masks and resize them bilinearly.

    Parameters
    ----------
    scores : Tensor
        (C, H, W) of a padded image.
    image_size : tuple[int, int]
        Height and width of the image without padding.
    size : tuple[int, int]
        Height and width of the result.

    Returns
    -------
    Tensor
        (C, *size); `scores` itself if the sizes are equal.
    """
    if tuple(scores.shape[-2:]) == tuple(image_size) == tuple(size):
        return scores  # interpolation would copy the same values
    return sem_seg_postprocess(scores, image_size, *size)


def semantic_inference(
    class_logits: Tensor, mask_logits: Tensor, *, overwrite: bool = False
) -> Tensor:
    """Return the sum over queries of class probability times mask probability.

    The no-object class is left out. The computation uses float32, also under autocast.

    Parameters
    ----------
    class_logits : Tensor
        (Q, num_classes + 1).
    mask_logits : Tensor
        (Q, H, W).
    overwrite : bool
        Whether `mask_logits` in float32 may be overwritten, which saves their memory.

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
        masks = mask_logits.float()
        masks = masks.sigmoid_() if overwrite else masks.sigmoid()
        return torch.einsum("qc,qhw->chw", classes, masks)
