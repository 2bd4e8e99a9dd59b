"""The training loss: class, mask and dice losses of the matched predictions."""

from collections.abc import Collection, Mapping, Sequence

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.common.validation import check_number

from .losses import dice_loss, sigmoid_ce_loss
from .points import image_generators, point_sample, uncertain_points

Indices = Sequence[tuple[Tensor, Tensor]]


class SetCriterion(nn.Module):
    """Cross-entropy of classes, and cross-entropy and dice loss of masks at sampled points.

    Parameters
    ----------
    num_classes : int
        Number of classes without the no-object class.
    matcher : nn.Module
        Assigns predictions to targets, see `HungarianMatcher`.
    weight_dict : Mapping[str, float]
        Weight by loss name, see `loss_weights`. The meta-architecture applies the weights.
    eos_coef : float
        Weight of the no-object class; 0.1 in the paper.
    losses : Sequence[str]
        Which of "labels" and "masks" to compute.
    num_points, oversample_ratio, importance_sample_ratio : int, float
        The points of the mask losses; 12,544, 3.0 and 0.75 in the paper.
    """

    def __init__(
        self,
        num_classes: int,
        matcher: nn.Module,
        weight_dict: Mapping[str, float],
        eos_coef: float = 0.1,
        losses: Sequence[str] = ("labels", "masks"),
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
    ):
        super().__init__()
        unknown = sorted(set(losses) - {"labels", "masks"})
        if unknown:
            raise ValueError(f'SetCriterion: losses must be "labels" or "masks", got {unknown}.')
        check_number("no_object_weight", eos_coef, most=1e6)
        for name, weight in weight_dict.items():
            check_number(f"the weight of {name}", weight, most=1e6)
        if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
            raise ValueError(
                "SetCriterion: expected oversample_ratio >= 1 and importance_sample_ratio within "
                f"0..1, got {oversample_ratio} and {importance_sample_ratio}."
            )
        self.num_classes = num_classes
        self.matcher = matcher
        self.weight_dict = dict(weight_dict)
        self.eos_coef = eos_coef
        self.losses = list(losses)
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = eos_coef
        self.register_buffer("empty_weight", empty_weight)

    def forward(self, outputs: dict, targets: Sequence[dict]) -> dict[str, Tensor]:
        """Compute the losses of all predictions, unweighted.

        Parameters
        ----------
        outputs : dict
            "pred_logits" (N, Q, num_classes + 1), "pred_masks" (N, Q, H, W) logits, and optionally
            "aux_outputs", a list of such dictionaries.
        targets : Sequence[dict]
            Per image "labels" (K,) int64 and "masks" (K, H', W'), all of one size. If "seed" is
            given, the image's random points depend only on it; otherwise they come from torch's
            global generator in the order of the published code.

        Returns
        -------
        dict[str, Tensor]
            Unweighted "loss_ce", "loss_mask" and "loss_dice", and the same with the suffix _i for
            the i-th auxiliary output. Averaging the gradients of all ranks, as DDP does, gives the
            gradient of the whole batch in one process.

        Raises
        ------
        FloatingPointError
            If predictions are not finite. All processes raise if the predictions of one are not
            finite.
        """
        generators = image_generators(targets, outputs["pred_masks"].device)
        # Converted once, because the losses of all predictions sample the same masks.
        targets = [{**target, "masks": target["masks"].float()} for target in targets]
        num_masks = outputs["pred_masks"].new_tensor(
            sum(len(target["labels"]) for target in targets), dtype=torch.float32
        )
        num_masks = _mean_over_ranks(num_masks).clamp(min=1)

        predictions = {"": outputs}
        predictions |= {f"_{i}": aux for i, aux in enumerate(outputs.get("aux_outputs", []))}
        if comm.get_world_size() > 1:
            self._fail_together(predictions.values(), targets, generators)
        losses = {}
        with torch.amp.autocast(num_masks.device.type, enabled=False):
            for suffix, prediction in predictions.items():
                indices = self.matcher(prediction, targets, generators)
                found = {}
                if "labels" in self.losses:
                    found |= self.loss_labels(prediction, targets, indices)
                if "masks" in self.losses:
                    found |= self.loss_masks(prediction, targets, indices, num_masks, generators)
                losses |= {name + suffix: loss for name, loss in found.items()}
        return losses

    def _fail_together(
        self,
        predictions: Collection[dict],
        targets: Sequence[dict],
        generators: Sequence[torch.Generator | None],
    ) -> None:
        """Raise in all processes if the predictions of one are not finite.

        The matcher raises only in that process, and the other processes would wait for its sums.
        """
        broken = [
            prediction
            for prediction in predictions
            if not all(prediction[k].isfinite().all() for k in ("pred_logits", "pred_masks"))
        ]
        anywhere = _mean_over_ranks(self.empty_weight.new_tensor(len(broken)))
        if not anywhere:
            return
        for prediction in broken:
            self.matcher(prediction, targets, generators)  # raises an error that names the image
        raise FloatingPointError("the predictions of another process are not finite")

    def loss_labels(
        self, outputs: dict, targets: Sequence[dict], indices: Indices
    ) -> dict[str, Tensor]:
        """Compute the weighted mean cross-entropy of all queries; unmatched ones are no-object.

        Deviation: the sum of weights is averaged over ranks. The published code divides each rank's
        loss by its own sum, so its gradient over N processes differs from that of one process with
        the whole batch. In one process both are equal.

        Parameters
        ----------
        outputs : dict
            "pred_logits" (N, Q, num_classes + 1).
        targets : Sequence[dict]
            See :meth:`forward`.
        indices : Indices
            The result of the matcher.

        Returns
        -------
        dict[str, Tensor]
            "loss_ce".
        """
        logits = outputs["pred_logits"].float()
        classes = logits.new_full(logits.shape[:2], self.num_classes, dtype=torch.int64)
        for i, (target, (sources, matches)) in enumerate(zip(targets, indices, strict=True)):
            classes[i, sources.to(classes.device)] = target["labels"][
                matches.to(target["labels"].device)
            ].to(classes.device)
        total_weight = _mean_over_ranks(self.empty_weight[classes].sum())
        nll = F.cross_entropy(logits.transpose(1, 2), classes, self.empty_weight, reduction="sum")
        return {"loss_ce": nll / total_weight}

    def loss_masks(
        self,
        outputs: dict,
        targets: Sequence[dict],
        indices: Indices,
        num_masks: Tensor | float,
        generators: Sequence[torch.Generator | None],
    ) -> dict[str, Tensor]:
        """Compute the cross-entropy and dice loss of the matched masks at points.

        Parameters
        ----------
        outputs : dict
            "pred_masks" (N, Q, H, W) logits.
        targets : Sequence[dict]
            See :meth:`forward`.
        indices : Indices
            The result of the matcher.
        num_masks : Tensor or float
            The divisor of the losses: the number of target masks of a rank.
        generators : Sequence[torch.Generator | None]
            The random generators of the images, see `image_generators`.

        Returns
        -------
        dict[str, Tensor]
            "loss_mask" and "loss_dice".
        """
        counts = [len(sources) for sources, _ in indices]
        predicted = torch.cat(
            [
                masks[i.to(masks.device)].float()
                for masks, (i, _) in zip(outputs["pred_masks"], indices, strict=True)
            ]
        )
        points = uncertain_points(
            predicted.detach(),
            counts,
            generators,
            self.num_points,
            self.oversample_ratio,
            self.importance_sample_ratio,
        )
        logits = point_sample(predicted[:, None], points).squeeze(1)
        labels = _labels_at(points, targets, indices).to(predicted)
        return {
            "loss_mask": sigmoid_ce_loss(logits, labels, num_masks),
            "loss_dice": dice_loss(logits, labels, num_masks),
        }


def _labels_at(points: Tensor, targets: Sequence[dict], indices: Indices) -> Tensor:
    """Return the matched target masks at points (N, P, 2), one row for each pair: (N, P).

    The points are reordered instead of the masks, because the masks are larger.
    """
    sizes = [target["masks"].shape[-2:] for target in targets]
    h, w = (max(sides) for sides in zip(*sizes, strict=True))
    pieces = points.split([len(matches) for _, matches in indices])
    labels = []
    for target, (_, matches), at, size in zip(targets, indices, pieces, sizes, strict=True):
        masks = target["masks"].to(points)
        if size != (h, w):
            masks = F.pad(masks, (0, w - size[1], 0, h - size[0]))
        if len(matches) < len(masks):
            masks, order = masks[matches.to(masks.device)], torch.arange(len(matches))
        else:
            order = matches.argsort()
        sampled = point_sample(masks[:, None], at[order.to(at.device)]).squeeze(1)
        labels.append(sampled[order.argsort().to(at.device)])
    return torch.cat(labels)


def _mean_over_ranks(value: Tensor) -> Tensor:
    world_size = comm.get_world_size()
    if world_size == 1:
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / world_size
