"""Mask losses at sampled points, for matched pairs and for all pairs (the matcher's costs)."""

from torch import Tensor
from torch.nn import functional as F


def sigmoid_ce_loss(logits: Tensor, labels: Tensor, num_masks: Tensor | float) -> Tensor:
    """Return the binary cross-entropy, averaged over points and summed over masks.

    Parameters
    ----------
    logits : Tensor
        Mask logits (N, P). N may be 0; the loss is then 0.
    labels : Tensor
        Targets in 0..1, (N, P).
    num_masks : Tensor or float
        Divisor of the sum.

    Returns
    -------
    Tensor
        The loss, a scalar.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return loss.mean(dim=1).sum() / num_masks


def dice_loss(logits: Tensor, labels: Tensor, num_masks: Tensor | float) -> Tensor:
    """Return the dice loss, summed over masks.

    The loss of a mask is 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) with p = sigmoid(logits).

    Parameters
    ----------
    logits : Tensor
        Mask logits (N, P). N may be 0; the loss is then 0.
    labels : Tensor
        Targets t in 0..1, (N, P).
    num_masks : Tensor or float
        Divisor of the sum.

    Returns
    -------
    Tensor
        The loss, a scalar.
    """
    p = logits.sigmoid()
    overlap = (p * labels).sum(dim=-1)
    loss = 1 - (2 * overlap + 1) / (p.sum(dim=-1) + labels.sum(dim=-1) + 1)
    return loss.sum() / num_masks


def pairwise_sigmoid_ce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy of every prediction with every target.

    With softplus(-x) = softplus(x) - x, the loss at a point is softplus(x) - x t. It needs one
    transcendental function per point and one matrix product.

    Parameters
    ----------
    logits : Tensor
        Predictions (Q, P).
    labels : Tensor
        Targets in 0..1, (K, P).

    Returns
    -------
    Tensor
        Means over points, (Q, K).
    """
    return (F.softplus(logits).sum(dim=1)[:, None] - logits @ labels.T) / logits.shape[1]


def pairwise_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the dice loss of every prediction with every target.

    Parameters
    ----------
    logits : Tensor
        Predictions (Q, P).
    labels : Tensor
        Targets in 0..1, (K, P).

    Returns
    -------
    Tensor
        The losses (Q, K).
    """
    p = logits.sigmoid()
    total = p.sum(dim=1)[:, None] + labels.sum(dim=1)[None]
    return 1 - (2 * (p @ labels.T) + 1) / (total + 1)


def loss_weights(
    class_weight: float = 2.0,
    mask_weight: float = 5.0,
    dice_weight: float = 5.0,
    aux_layers: int = 9,
) -> dict[str, float]:
    """Return the `weight_dict` of `SetCriterion`.

    The last output and each auxiliary output have the same three weights.

    Parameters
    ----------
    class_weight, mask_weight, dice_weight : float
        Weights of the three losses.
    aux_layers : int
        Number of layers of the decoder; 0 means no deep supervision.

    Returns
    -------
    dict[str, float]
        Weight by loss name.

    Examples
    --------
    >>> sorted(loss_weights(aux_layers=1))
    ['loss_ce', 'loss_ce_0', 'loss_dice', 'loss_dice_0', 'loss_mask', 'loss_mask_0']
    """
    weights = {"loss_ce": class_weight, "loss_mask": mask_weight, "loss_dice": dice_weight}
    suffixes = ["", *(f"_{i}" for i in range(aux_layers))]
    return {name + suffix: weight for suffix in suffixes for name, weight in weights.items()}
