"""Mappers from a record of a dataset to a training or test sample."""

import cv2
import numpy as np
import torch

from recyclelora.common.validation import check_integer

from . import augmentation
from .reading import read_pair, read_pair_ids


class TrainMapper:
    """The paper's training pipeline: a pure function of the record and the generator.

    The mapper resizes the image to a short side drawn from ``crop * x / 10`` for x = 5..20 (256 to
    1024 at crop 512) with a long side of at most 4 x crop. It then applies a random crop with at
    most 75 % of one class, padding, flip and photometric distortion.

    Parameters
    ----------
    crop : int
        The side of the square crop in pixels. The scales are relative to it.
    pad_to_crop : bool
        Whether smaller crops are filled with black before normalisation (the paper's setting for
        GTAV or Cityscapes alone). Otherwise the model pads a batch with the mean colour (the
        setting for several sources).

    Examples
    --------
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

    @property
    def sample_bytes(self) -> int:
        """Return the size of the largest sample in bytes, four for each pixel (RGB and label)."""
        return 4 * self.crop**2

    def __call__(self, record: dict, rng: np.random.Generator) -> dict:
        """Read, augment and convert a record.

        Parameters
        ----------
        record : dict
            A record of a dataset.
        rng : Generator
            The random generator of the sample.

        Returns
        -------
        dict
            ``image`` (3, H, W) uint8 RGB, ``sem_seg`` (H, W) uint8 train ids with 255 for ignored
            pixels, ``seed`` for the random numbers that the model draws for this sample,
            ``file_name``, ``image_id``, and ``height`` and ``width`` of this sample.
        """
        seed = int(rng.integers(2**63 - 1))
        files = record["file_name"], record["sem_seg_file_name"]
        image, ids, table = read_pair_ids(*files, record["label_map"])
        short = int(rng.choice(self.short_sides))
        size = augmentation.resized_size(ids.shape, short, 4 * self.crop)
        ids = augmentation.resize_label(ids, size)
        window, label = augmentation.random_window(ids, self.crop, rng, table)
        image = augmentation.resize_window(image, size, window)
        if self.pad_to_crop:
            image, label = augmentation.pad(image, label, self.crop)
        image, label = augmentation.random_flip(image, label, rng)
        image = augmentation.photometric_distortion(image, rng)
        return _sample(record, image, label) | {"seed": seed}


class TestMapper:
    """Mapper that returns image and label in their original size, for evaluation protocols."""

    __test__ = False  # prevents pytest from collecting the class

    def __call__(self, record: dict) -> dict:
        """Read and convert a record.

        Parameters
        ----------
        record : dict
            A record of a dataset.

        Returns
        -------
        dict
            ``image`` (3, H, W) uint8 RGB, ``sem_seg`` (H, W) uint8 train ids with 255 for ignored
            pixels, ``file_name``, ``image_id``, ``height``, ``width``.
        """
        files = record["file_name"], record["sem_seg_file_name"]
        return _sample(record, *read_pair(*files, record["label_map"]))


def _sample(record: dict, image: np.ndarray, label: np.ndarray) -> dict:
    return {
        "image": torch.from_numpy(_channels_first(image)),
        "sem_seg": torch.from_numpy(np.ascontiguousarray(label)),
        "file_name": record["file_name"],
        "image_id": record["image_id"],
        "height": label.shape[0],
        "width": label.shape[1],
    }


def _channels_first(image: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) to a contiguous (3, H, W), four times faster than a transposed copy."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))
    return planes
