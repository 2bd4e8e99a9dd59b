"""The paper's training augmentation on NumPy arrays: pure functions of an explicit generator.

Images are (H, W, 3) uint8 RGB, labels (H, W) uint8 train ids with 255 = ignore. The steps, their
order and their ranges are those of mmsegmentation's pipeline, which the published models were
trained with. The random numbers differ, because they come from the generator of the sample.
"""

import cv2
import numpy as np

from .classes import CLASSES, IGNORE_LABEL

Pair = tuple[np.ndarray, np.ndarray]


def resize_short_side(image: np.ndarray, label: np.ndarray, short: int, long_max: int) -> Pair:
    """Resize to a short side of ``short``, or less if the long side would exceed ``long_max``."""
    height, width = label.shape
    scale = min(short / min(height, width), long_max / max(height, width))
    size = (max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_LINEAR),
        cv2.resize(label, size, interpolation=cv2.INTER_NEAREST),
    )


def random_crop(
    image: np.ndarray,
    label: np.ndarray,
    size: int,
    rng: np.random.Generator,
    max_class_share: float = 0.75,
    tries: int = 10,
) -> Pair:
    """Cut a random window of at most size x size.

    A window is accepted if it has at least two classes and the largest covers less than
    ``max_class_share`` of the labelled pixels. After ``tries`` rejected windows the next one is
    accepted unconditionally.
    """
    height, width = label.shape
    for attempt in range(tries + 1):
        top = int(rng.integers(max(height - size, 0) + 1))
        left = int(rng.integers(max(width - size, 0) + 1))
        window = slice(top, top + size), slice(left, left + size)
        counts = np.bincount(label[window].ravel(), minlength=len(CLASSES))[: len(CLASSES)]
        several = np.count_nonzero(counts) > 1
        if attempt == tries or (several and counts.max() < max_class_share * counts.sum()):
            break
    return image[window], label[window]


def pad(image: np.ndarray, label: np.ndarray, size: int) -> Pair:
    """Pad to size x size on the right and below: the image with black, the label with 255."""
    height, width = label.shape
    below, right = max(size - height, 0), max(size - width, 0)
    if not below and not right:
        return image, label
    return (
        np.pad(image, ((0, below), (0, right), (0, 0))),
        np.pad(label, ((0, below), (0, right)), constant_values=IGNORE_LABEL),
    )


def random_flip(
    image: np.ndarray, label: np.ndarray, rng: np.random.Generator, probability: float = 0.5
) -> Pair:
    """Flip horizontally with a probability."""
    if rng.random() < probability:
        return image[:, ::-1], label[:, ::-1]
    return image, label


def scale_and_shift(image: np.ndarray, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Return clip(scale * image + shift, 0, 255), truncated to integers, for any uint8 array."""
    table = np.clip(np.arange(256, dtype=np.float32) * scale + shift, 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(image), table)


def scale_saturation(image: np.ndarray, scale: float) -> np.ndarray:
    """Multiply the saturation of an RGB image in 8-bit HSV."""
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    hsv[..., 1] = scale_and_shift(hsv[..., 1], scale=scale)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def shift_hue(image: np.ndarray, shift: int) -> np.ndarray:
    """Rotate the hue of an RGB image by ``shift`` steps of 2 degrees."""
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
    table = ((np.arange(256) + shift) % 180).astype(np.uint8)
    hsv[..., 0] = cv2.LUT(np.ascontiguousarray(hsv[..., 0]), table)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def photometric_distortion(
    image: np.ndarray,
    rng: np.random.Generator,
    brightness: float = 32.0,
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    hue: int = 18,
) -> np.ndarray:
    """Apply SSD's distortion: brightness, contrast, saturation, hue, each with probability 1/2.

    Contrast is applied before saturation and hue or after them, each with probability 1/2. The hue
    is shifted by an integer in [-hue, hue).
    """

    def coin() -> bool:
        return bool(rng.integers(2))

    def distort_contrast(pixels: np.ndarray) -> np.ndarray:
        return scale_and_shift(pixels, scale=rng.uniform(*contrast)) if coin() else pixels

    if coin():
        image = scale_and_shift(image, shift=rng.uniform(-brightness, brightness))
    contrast_first = coin()
    if contrast_first:
        image = distort_contrast(image)
    if coin():
        image = scale_saturation(image, rng.uniform(*saturation))
    if coin():
        image = shift_hue(image, int(rng.integers(-hue, hue)))
    return image if contrast_first else distort_contrast(image)
