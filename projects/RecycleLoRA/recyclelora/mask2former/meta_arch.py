"""Mask2Former as a Detectron2 meta-architecture, for semantic segmentation."""

import inspect
from collections.abc import Sequence

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor, nn

from .inference import resize_masks, resize_scores, semantic_inference
from .targets import padded_target, targets_from_instances, targets_from_sem_seg


@META_ARCH_REGISTRY.register()
class MaskFormer(nn.Module):
    """A segmentor: backbone, head and loss (Cheng et al., Mask2Former).

    Parameters
    ----------
    backbone : nn.Module
        A Detectron2 `Backbone`.
    sem_seg_head : nn.Module
        See `MaskFormerHead`.
    criterion : nn.Module
        See `SetCriterion`.
    size_divisibility : int
        Batches are padded to a multiple of this size. -1 uses the value of the backbone.
    sem_seg_postprocess_before_inference : bool
        Whether to resize the masks, not the class scores, to the size of the output. This is exact
        where masks overlap, but slower, and needs more memory.
    pixel_mean, pixel_std : Sequence[float]
        Mean and standard deviation of each channel, RGB in 0..255.
    metadata : object
        Metadata of the dataset, stored as an attribute.
    num_queries, object_mask_threshold, overlap_threshold, test_topk_per_image : optional
        Accepted and ignored; the published class uses them in panoptic and instance inference.
    semantic_on, panoptic_on, instance_on : bool
        Only semantic inference is supported.

    Raises
    ------
    NotImplementedError
        If `semantic_on` is False, or one of the other two is True.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        criterion: nn.Module,
        num_queries: int | None = None,
        object_mask_threshold: float = 0.8,
        overlap_threshold: float = 0.8,
        metadata: object = None,
        size_divisibility: int = -1,
        sem_seg_postprocess_before_inference: bool = False,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
        semantic_on: bool = True,
        panoptic_on: bool = False,
        instance_on: bool = False,
        test_topk_per_image: int = 100,
    ):
        super().__init__()
        if panoptic_on or instance_on or not semantic_on:
            raise NotImplementedError(
                "only semantic inference is supported: pass semantic_on=True, panoptic_on=False "
                "and instance_on=False."
            )
        self.backbone = backbone
        # The head enlarges the maps of a plain ViT itself, see `CoarseMap`.
        keywords = inspect.signature(backbone.forward).parameters
        self._backbone_options = {"enlarge": False} if "enlarge" in keywords else {}
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.metadata = metadata
        self.size_divisibility = (
            backbone.size_divisibility if size_divisibility < 0 else size_divisibility
        )
        self.sem_seg_postprocess_before_inference = sem_seg_postprocess_before_inference
        self.register_buffer("pixel_mean", _per_channel(pixel_mean), False)
        self.register_buffer("pixel_std", _per_channel(pixel_std), False)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: Sequence[dict]) -> dict[str, Tensor] | list[dict]:
        """Compute the losses in training mode, and class scores otherwise.

        Parameters
        ----------
        batched_inputs : Sequence[dict]
            Per image "image" (3, H, W), RGB 0..255. For training "sem_seg" (H, W), class ids with
            the head's `ignore_value` (255), or "instances" with gt_classes and gt_masks; optionally
            "seed" (see `SetCriterion`) and "file_name". For inference optionally "height" and
            "width" of the output.

        Returns
        -------
        dict[str, Tensor] or list[dict]
            In training mode the weighted losses by name, those in the criterion's `weight_dict`.
            Otherwise {"sem_seg": scores (num_classes, height, width)} for each image.

        Raises
        ------
        ValueError
            If an image or label has the wrong shape, or a class id is unknown.
        FloatingPointError
            If predictions are not finite, see `HungarianMatcher`.
        """
        images = [self._normalised(x["image"], _name(i, x)) for i, x in enumerate(batched_inputs)]
        batch = ImageList.from_tensors(images, self.size_divisibility)
        if self.training:
            targets = self._targets(batched_inputs, batch)
            losses = self.criterion(self._predict(batch), targets)
            weights = self.criterion.weight_dict
            return {name: loss * weights[name] for name, loss in losses.items() if name in weights}
        sizes = [
            (x.get("height", size[0]), x.get("width", size[1]))
            for x, size in zip(batched_inputs, batch.image_sizes, strict=True)
        ]
        return [{"sem_seg": scores} for scores in self._sem_seg(batch, sizes)]

    @torch.no_grad()
    def semantic_logits(self, images: Tensor) -> Tensor:
        """Return class scores for images of one size.

        Parameters
        ----------
        images : Tensor
            Images (B, 3, H, W), RGB 0..255.

        Returns
        -------
        Tensor
            Scores (B, num_classes, H, W).

        Raises
        ------
        ValueError
            If the images do not have this shape.
        """
        if images.dim() != 4:
            raise ValueError(f"expected images (B, 3, H, W), got shape {tuple(images.shape)}.")
        normalised = [self._normalised(x, f"image {i}") for i, x in enumerate(images)]
        batch = ImageList.from_tensors(normalised, self.size_divisibility)
        scores = list(self._sem_seg(batch, batch.image_sizes))
        return scores[0][None] if len(scores) == 1 else torch.stack(scores)

    def _predict(self, batch: ImageList) -> dict:
        return self.sem_seg_head(self.backbone(batch.tensor, **self._backbone_options))

    def _sem_seg(self, batch: ImageList, sizes: Sequence[tuple[int, int]]):
        """Yield the scores of one image at a time, because full-size masks need much memory."""
        outputs = self._predict(batch)
        padded = tuple(batch.tensor.shape[-2:])
        for logits, masks, image_size, size in zip(
            outputs["pred_logits"], outputs["pred_masks"], batch.image_sizes, sizes, strict=True
        ):
            masks = resize_masks(masks, padded)
            if self.sem_seg_postprocess_before_inference:
                masks = resize_scores(masks, image_size, size)
                yield semantic_inference(logits, masks, overwrite=True)
            else:
                scores = semantic_inference(logits, masks, overwrite=True)
                yield resize_scores(scores, image_size, size)

    def _normalised(self, image: Tensor, name: str) -> Tensor:
        channels = len(self.pixel_mean)
        if image.dim() != 3 or len(image) != channels:
            raise ValueError(
                f'{name}: expected "image" ({channels}, H, W), got shape {tuple(image.shape)}.'
            )
        return (image.to(self.device, non_blocking=True) - self.pixel_mean) / self.pixel_std

    def _targets(self, batched_inputs: Sequence[dict], batch: ImageList) -> list[dict]:
        num_classes = self.sem_seg_head.num_classes
        size = tuple(batch.tensor.shape[-2:])
        targets = []
        for i, x in enumerate(batched_inputs):
            name = _name(i, x)
            if "sem_seg" in x:
                ignore_value = self.sem_seg_head.ignore_value
                target = targets_from_sem_seg(x["sem_seg"], num_classes, ignore_value, name)
            elif "instances" in x:
                target = targets_from_instances(x["instances"], num_classes, name)
            else:
                raise ValueError(
                    f'{name}: expected "sem_seg" or "instances" for training, got {sorted(x)}.'
                )
            if tuple(target["masks"].shape[-2:]) != tuple(batch.image_sizes[i]):
                raise ValueError(
                    f"{name}: expected a label of the image's size {tuple(batch.image_sizes[i])}, "
                    f"got {tuple(target['masks'].shape[-2:])}; resize the label (nearest)."
                )
            target = padded_target(target, size, self.device)
            target |= {key: x[key] for key in ("seed", "file_name") if key in x}
            targets.append(target)
        return targets


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1)


def _name(index: int, batched_input: dict) -> str:
    return batched_input.get("file_name") or f"image {index} of the batch"
