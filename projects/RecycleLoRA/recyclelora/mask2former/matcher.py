"""One-to-one assignment of predictions to targets by total cost (Mask2Former, section 3.2.3)."""

from collections.abc import Sequence
from contextlib import suppress

import torch
from detectron2.utils.events import get_event_storage
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from recyclelora.common.validation import check_integer, check_number

from .losses import pairwise_dice_loss, pairwise_sigmoid_ce_loss
from .points import draw_points, image_generators, point_sample


class HungarianMatcher(nn.Module):
    """Assign min(Q, K) predictions to targets so that the sum of costs is smallest.

    The cost of a pair is -p(class) * cost_class + cross-entropy * cost_mask + dice loss *
    cost_dice. The masks are compared at `num_points` random points, which all pairs of an image
    share. The computation uses float32, also under autocast.

    Parameters
    ----------
    cost_class, cost_mask, cost_dice : float
        Weights of the costs; 2, 5 and 5 in the paper.
    num_points : int
        Number of points; 12,544 (112 x 112) in the paper.
    """

    def __init__(
        self,
        cost_class: float = 1,
        cost_mask: float = 1,
        cost_dice: float = 1,
        num_points: int = 12544,
    ):
        super().__init__()
        for name, cost in (("class", cost_class), ("mask", cost_mask), ("dice", cost_dice)):
            check_number(f"HungarianMatcher: the cost of {name}", cost, most=1e6)
        if cost_class == cost_mask == cost_dice == 0:
            raise ValueError("HungarianMatcher: at least one of the three costs must not be 0.")
        check_integer("HungarianMatcher: num_points", num_points, least=1, most=10**6)
        self.cost_class = cost_class
        self.cost_mask = cost_mask
        self.cost_dice = cost_dice
        self.num_points = num_points

    @torch.no_grad()
    def forward(
        self,
        outputs: dict[str, Tensor],
        targets: Sequence[dict],
        generators: Sequence[torch.Generator | None] | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Match the predictions of each image to its targets.

        Parameters
        ----------
        outputs : dict[str, Tensor]
            "pred_logits" (N, Q, num_classes + 1), "pred_masks" (N, Q, H, W) logits.
        targets : Sequence[dict]
            For each image "labels" (K,) int64 and "masks" (K, H', W'); optionally "seed", and
            "file_name" for error messages.
        generators : Sequence[torch.Generator or None], optional
            Random generators of the points, one for each image. By default they are made from the
            seeds.

        Returns
        -------
        list[tuple[Tensor, Tensor]]
            Per image the indices of the matched predictions, ascending, and of their targets, int64
            on the CPU.

        Raises
        ------
        FloatingPointError
            If a cost is NaN or infinite. The message names the image, its file if known, and the
            iteration of a Detectron2 training loop.
        """
        logits, masks = outputs["pred_logits"], outputs["pred_masks"]
        if generators is None:
            generators = image_generators(targets, masks.device)
        costs = []
        with torch.amp.autocast(masks.device.type, enabled=False):
            for i, (target, generator) in enumerate(zip(targets, generators, strict=True)):
                points = draw_points([1], self.num_points, masks.device, [generator])
                costs.append(self.cost_matrix(logits[i], masks[i], target, points))
        # A single transfer for the whole batch.
        flat = torch.cat([cost.flatten() for cost in costs]).cpu()
        pieces = flat.split([cost.numel() for cost in costs])
        indices = []
        for i, (piece, cost) in enumerate(zip(pieces, costs, strict=True)):
            if not piece.isfinite().all():
                raise FloatingPointError(_not_finite(i, targets[i], logits[i], masks[i]))
            rows, columns = linear_sum_assignment(piece.view(cost.shape).numpy())
            indices.append((torch.as_tensor(rows), torch.as_tensor(columns)))
        return indices

    def cost_matrix(self, logits: Tensor, masks: Tensor, target: dict, points: Tensor) -> Tensor:
        """Return the cost of every pair of a prediction and a target of one image.

        Parameters
        ----------
        logits : Tensor
            Class logits (Q, num_classes + 1).
        masks : Tensor
            Mask logits (Q, H, W).
        target : dict
            "labels" (K,) and "masks" (K, H', W').
        points : Tensor
            Points (1, P, 2) at which masks are compared.

        Returns
        -------
        Tensor
            The costs (Q, K).
        """
        class_cost = -logits.float().softmax(dim=-1)[:, target["labels"]]
        # The masks are channels of one map, so they share the corners and weights of the points.
        predicted = point_sample(masks[None].float(), points)[0]
        wanted = point_sample(target["masks"][None].to(predicted), points)[0]
        return (
            self.cost_mask * pairwise_sigmoid_ce_loss(predicted, wanted)
            + self.cost_class * class_cost
            + self.cost_dice * pairwise_dice_loss(predicted, wanted)
        )


def _not_finite(index: int, target: dict, logits: Tensor, masks: Tensor) -> str:
    place = f"image {index} of the batch"
    if target.get("file_name"):
        place += f" ({target['file_name']})"
    with suppress(AssertionError):  # raised by Detectron2 outside a training loop
        place += f" at iteration {get_event_storage().iter}"
    culprits = [
        name
        for name, tensor in (("class logits", logits), ("mask logits", masks))
        if not tensor.isfinite().all()
    ]
    cause = " and ".join(culprits) or "the costs of finite logits"
    return (
        f"The matching costs of {place} are not finite ({cause} contain NaN or Inf). The model "
        "has diverged: lower the learning rate, or train in float32 or bfloat16 instead of float16."
    )
