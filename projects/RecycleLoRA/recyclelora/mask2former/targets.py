"""Targets of the criterion: one binary mask per class, or the given instances."""

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F


def targets_from_sem_seg(sem_seg: Tensor, num_classes: int, ignore_value: int, name: str) -> dict:
    """Convert a map of class ids to a target.

    Parameters
    ----------
    sem_seg : Tensor
        Class ids (H, W). If all pixels are ignored, the target has K = 0.
    num_classes : int
        Number of classes.
    ignore_value : int
        The id of ignored pixels.
    name : str
        Name of the image, with which error messages begin.

    Returns
    -------
    dict
        "labels" (K,), int64 and ascending, and "masks" (K, H, W), bool.

    Raises
    ------
    ValueError
        If `sem_seg` does not contain integers (H, W), or if an id is neither below `num_classes`
        nor `ignore_value`.

    Examples
    --------
    >>> targets_from_sem_seg(torch.tensor([[3, 255], [3, 0]]), 19, 255, "a.png")["labels"]
    tensor([0, 3])
    """
    if sem_seg.dim() != 2 or sem_seg.is_floating_point():
        raise ValueError(
            f'{name}: expected "sem_seg" as integers (H, W), got {sem_seg.dtype} '
            f"{tuple(sem_seg.shape)}."
        )
    present = _values(sem_seg)
    present = present[present != ignore_value]
    wrong = present[(present < 0) | (present >= num_classes)].tolist()
    if wrong:
        raise ValueError(
            f'{name}: "sem_seg" contains the class ids {wrong}, expected 0..{num_classes - 1} or '
            f"{ignore_value} (ignored); map the labels to train ids."
        )
    return {"labels": present, "masks": sem_seg == present.to(sem_seg.dtype)[:, None, None]}


def _values(sem_seg: Tensor) -> Tensor:
    """Return the different values of a map, ascending.

    They are int64, because uint8 would wrap an ignore_value outside 0..255.

    Counting takes a tenth of the time that `unique` needs to sort the pixels.
    """
    if sem_seg.dtype == torch.uint8:  # as in the samples of a training
        return sem_seg.flatten().bincount().nonzero()[:, 0]
    return sem_seg.unique().long()


def targets_from_instances(instances: Instances, num_classes: int, name: str) -> dict:
    """Convert the instances of Detectron2 to a target.

    Parameters
    ----------
    instances : Instances
        `gt_classes` (K,) and `gt_masks`, (K, H, W) or `BitMasks`.
    num_classes : int
        Number of classes.
    name : str
        Name of the image, with which error messages begin.

    Returns
    -------
    dict
        "labels" (K,) and "masks" (K, H, W).

    Raises
    ------
    ValueError
        If the shapes do not fit, or if a class is out of range.
    """
    labels, masks = instances.gt_classes, instances.gt_masks
    masks = getattr(masks, "tensor", masks)
    if masks.dim() != 3 or len(masks) != len(labels):
        raise ValueError(
            f'{name}: expected "instances" with as many gt_masks (K, H, W) as gt_classes, got '
            f"{tuple(masks.shape)} and {len(labels)}."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f'{name}: "instances" contains gt_classes {labels.unique().tolist()}, expected '
            f"0..{num_classes - 1}."
        )
    return {"labels": labels, "masks": masks}


def padded_target(target: dict, size: tuple[int, int], device: torch.device) -> dict:
    """Move a target to a device, and pad its masks with zeros at the bottom and the right.

    Parameters
    ----------
    target : dict
        "labels" and "masks".
    size : tuple[int, int]
        Height and width of the padded masks.
    device : torch.device
        The device.

    Returns
    -------
    dict
        The new target.
    """
    masks = target["masks"].to(device)
    h, w = masks.shape[-2:]
    padded = F.pad(masks, (0, size[1] - w, 0, size[0] - h))
    return {"labels": target["labels"].to(device), "masks": padded}
