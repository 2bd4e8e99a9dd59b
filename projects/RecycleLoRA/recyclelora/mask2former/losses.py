"""Mask losses at sampled points: of matched pairs, and of every pair (the matcher's costs)."""

from torch import Tensor
from torch.nn import functional as F


def sigmoid_ce_loss(logits: Tensor, labels: Tensor, num_masks: Tensor | float) -> Tensor:
    """Binary cross-entropy, mean over points, summed over masks, over `num_masks`.

    logits and labels (0..1) are (N, P); N may be 0, which gives 0.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return loss.mean(dim=1).sum() / num_masks


def dice_loss(logits: Tensor, labels: Tensor, num_masks: Tensor | float) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), p = sigmoid(logits), summed, over `num_masks`.

    logits and labels (0..1) are (N, P); N may be 0, which gives 0.
    """
    p = logits.sigmoid()
    overlap = (p * labels).sum(dim=-1)
    loss = 1 - (2 * overlap + 1) / (p.sum(dim=-1) + labels.sum(dim=-1) + 1)
    return loss.sum() / num_masks


def pairwise_sigmoid_ce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of every prediction with every target, mean over points.

    logits (Q, P), labels (K, P) -> (Q, K). With softplus(-x) = softplus(x) - x the loss is
    softplus(x) - x t: one transcendental function a point, and one matrix product.
    """
    return (F.softplus(logits).sum(dim=1)[:, None] - logits @ labels.T) / logits.shape[1]


def pairwise_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Dice loss of every prediction with every target: logits (Q, P), labels (K, P) -> (Q, K)."""
    p = logits.sigmoid()
    total = p.sum(dim=1)[:, None] + labels.sum(dim=1)[None]
    return 1 - (2 * (p @ labels.T) + 1) / (total + 1)


def loss_weights(
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
    aux_layers: int = 9,
) -> dict[str, float]:
    """SetCriterion's `weight_dict`: the same three weights for the last and each auxiliary output.

    `aux_layers` is the decoder's number of layers (0: no deep supervision).

    Examples
    --------
    >>> sorted(loss_weights(aux_layers=1))
    ['loss_ce', 'loss_ce_0', 'loss_dice', 'loss_dice_0', 'loss_mask', 'loss_mask_0']
    """
    weights = {"loss_ce": class_weight, "loss_mask": mask_weight, "loss_dice": dice_weight}
    suffixes = ["", *(f"_{i}" for i in range(aux_layers))]
    return {name + suffix: weight for suffix in suffixes for name, weight in weights.items()}
