"""Targets of the criterion: one binary mask per class present, or the instances as they are."""

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.nn import functional as F


def targets_from_sem_seg(sem_seg: Tensor, num_classes: int, ignore_value: int, name: str) -> dict:
    """Class ids (H, W) -> {"labels": (K,) int64 ascending, "masks": (K, H, W) bool}.

    An image whose pixels are all ignored gives K = 0.

    Raises
    ------
    ValueError
        If an id is neither below `num_classes` nor `ignore_value`; the message begins with `name`.

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
    present = sem_seg.unique().long()  # uint8 would wrap an ignore_value outside 0..255
    present = present[present != ignore_value]
    wrong = present[(present < 0) | (present >= num_classes)].tolist()
    if wrong:
        raise ValueError(
            f'{name}: "sem_seg" holds the class ids {wrong}, expected 0..{num_classes - 1} or '
            f"{ignore_value} (ignored); map the labels to train ids."
        )
    return {"labels": present, "masks": sem_seg == present.to(sem_seg.dtype)[:, None, None]}


def targets_from_instances(instances: Instances, num_classes: int, name: str) -> dict:
    """`gt_classes` (K,) and `gt_masks`, (K, H, W) or detectron2's `BitMasks` -> the same dict."""
    labels, masks = instances.gt_classes, instances.gt_masks
    masks = getattr(masks, "tensor", masks)
    if masks.dim() != 3 or len(masks) != len(labels):
        raise ValueError(
            f'{name}: expected "instances" with as many gt_masks (K, H, W) as gt_classes, got '
            f"{tuple(masks.shape)} and {len(labels)}."
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f'{name}: "instances" holds gt_classes {labels.unique().tolist()}, expected '
            f"0..{num_classes - 1}."
        )
    return {"labels": labels, "masks": masks}


def padded_target(target: dict, size: tuple[int, int], device: torch.device) -> dict:
    """The target on `device`, its masks filled up with zeros below and to the right."""
    masks = target["masks"].to(device)
    h, w = masks.shape[-2:]
    padded = F.pad(masks, (0, size[1] - w, 0, size[0] - h))
    return {"labels": target["labels"].to(device), "masks": padded}
