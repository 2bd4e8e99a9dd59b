"""One record of a dataset into one training or test sample."""

import numpy as np
import torch

from recyclelora.common.validation import check_integer

from . import augmentation
from .reading import read_pair


class TrainMapper:
    """The paper's training pipeline; a pure function of the record and the generator.

    A short side drawn from ``crop * x / 10`` for x = 5..20 (256 to 1024 at crop 512) with a long
    side of at most 4 x crop, a random crop with at most 75 % of one class, padding, flip,
    photometric distortion.

    Args:
        crop: side of the square crop in pixels; the scales follow it.
        pad_to_crop: fill smaller crops with black before normalisation (the paper for GTAV or
            Cityscapes alone). False leaves them to the model, which pads a batch with the mean
            colour (the multi-source settings).

    Example:
        >>> from PIL import Image
        >>> from recyclelora.data.label_maps import TRAIN_IDS
        >>> Image.new("RGB", (512, 256)).save("street.png")
        >>> Image.new("L", (512, 256)).save("label.png")
        >>> record = {"file_name": "street.png", "sem_seg_file_name": "label.png"}
        >>> record |= {"label_map": TRAIN_IDS, "image_id": "street"}
        >>> sample = TrainMapper(crop=256)(record, np.random.default_rng(0))
        >>> sample["image"].shape, sample["sem_seg"].shape
        (torch.Size([3, 256, 256]), torch.Size([256, 256]))
    """

    def __init__(self, crop: int = 512, pad_to_crop: bool = True) -> None:
        check_integer("the mapper's crop, in pixels,", crop, least=2, most=8192)
        self.crop = crop
        self.pad_to_crop = pad_to_crop
        self.short_sides = tuple(crop * x // 10 for x in range(5, 21))

    def __call__(self, record: dict, rng: np.random.Generator) -> dict:
        """Read, augment and convert ``record``.

        Returns:
            ``image`` (3, H, W) uint8 RGB, ``sem_seg`` (H, W) int64 train ids with 255 = ignore,
            ``seed`` for whatever the model draws for this sample, and ``file_name``, ``image_id``,
            ``height``, ``width`` (of this sample).
        """
        seed = int(rng.integers(2**63 - 1))
        image, label = read_pair(
            record["file_name"], record["sem_seg_file_name"], record["label_map"]
        )
        short = int(rng.choice(self.short_sides))
        image, label = augmentation.resize_short_side(image, label, short, 4 * self.crop)
        image, label = augmentation.random_crop(image, label, self.crop, rng)
        if self.pad_to_crop:
            image, label = augmentation.pad(image, label, self.crop)
        image, label = augmentation.random_flip(image, label, rng)
        image = augmentation.photometric_distortion(image, rng)
        return {
            "image": _to_tensor(image),
            "sem_seg": torch.from_numpy(label.astype(np.int64)),
            "seed": seed,
            "file_name": record["file_name"],
            "image_id": record["image_id"],
            "height": label.shape[0],
            "width": label.shape[1],
        }


class TestMapper:
    """An image and its truth as they are; an evaluation protocol decides on sizes."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __call__(self, record: dict) -> dict:
        """Read ``record``.

        Returns:
            ``image`` (3, H, W) uint8 RGB, ``sem_seg`` (H, W) uint8 train ids with 255 = ignore,
            ``file_name``, ``image_id``, ``height``, ``width``.
        """
        image, label = read_pair(
            record["file_name"], record["sem_seg_file_name"], record["label_map"]
        )
        return {
            "image": _to_tensor(image),
            "sem_seg": torch.from_numpy(label),
            "file_name": record["file_name"],
            "image_id": record["image_id"],
            "height": label.shape[0],
            "width": label.shape[1],
        }


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
