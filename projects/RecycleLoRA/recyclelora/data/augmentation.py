"""The paper's training augmentation on NumPy arrays: pure functions of an explicit generator.

Images are (H, W, 3) uint8 RGB, labels (H, W) uint8 train ids with 255 = ignore. The steps, their
order and their ranges are those of mmsegmentation's pipeline, which the published models were
trained with. The random numbers differ, because they come from the generator of the sample.
"""

import cv2
import numpy as np

from .classes import CLASSES, IGNORE_LABEL

Pair = tuple[np.ndarray, np.ndarray]
Window = tuple[slice, slice]  # rows and columns


def resized_size(shape: tuple[int, int], short: int, long_max: int) -> tuple[int, int]:
    """Return width and height for a short side of ``short``, or less for ``long_max``.

    ``shape`` is (height, width). The short side is smaller if the long side would else exceed
    ``long_max``.
    """
    height, width = shape
    scale = min(short / min(height, width), long_max / max(height, width))
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a label to ``size`` = (width, height), with the nearest value."""
    return cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)


def resize_window(image: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """Return a window of an image that is resized to ``size`` = (width, height), bilinearly.

    What is below and right of the window is not computed. The result equals
    ``cv2.resize(image, size)[window]``.
    """
    shape = np.array(image.shape[:2])
    scale = np.array(size[::-1]) / shape
    # Each output pixel has two neighbours in the image.
    ends = np.ceil([part.stop for part in window] / scale).astype(int) + 2
    height, width = np.minimum(ends, shape).tolist()
    down, right = scale.tolist()
    # OpenCV does not resize at all where the size would stay the same.
    if (round(height * down), round(width * right)) == (height, width):
        height, width = shape.tolist()
    part = cv2.resize(image[:height, :width], None, fx=right, fy=down)
    return part[window]


def random_window(
    label: np.ndarray,
    size: int,
    rng: np.random.Generator,
    table: np.ndarray | None = None,
    max_class_share: float = 0.75,
    tries: int = 10,
) -> tuple[Window, np.ndarray]:
    """Draw a random window of at most size x size; returns it and its label.

    A window is accepted if it has at least two classes and the largest covers less than
    ``max_class_share`` of the labelled pixels. After ``tries`` rejected windows the next one is
    accepted unconditionally. ``table``, (256,) uint8, converts the label of the window to train
    ids; without it the label has train ids.
    """
    height, width = label.shape
    for attempt in range(tries + 1):
        top = int(rng.integers(max(height - size, 0) + 1))
        left = int(rng.integers(max(width - size, 0) + 1))
        window = slice(top, min(top + size, height)), slice(left, min(left + size, width))
        cut = label[window] if table is None else cv2.LUT(label[window], table)
        if attempt == tries or has_several_classes(cut, max_class_share):
            break
    return window, cut


def has_several_classes(label: np.ndarray, max_share: float) -> bool:
    """Return whether no class covers ``max_share`` or more of the labelled pixels, nor all of them.

    It counts the classes that are frequent in a sample of the pixels first, and stops when those
    that are left are too few for that share: a histogram of all pixels takes five times as long.
    """
    left = labelled = label.size - _count(label, IGNORE_LABEL)
    if not labelled:
        return False
    sample = np.bincount(label[::16, ::16].ravel(), minlength=len(CLASSES))[: len(CLASSES)]
    for class_id in np.argsort(-sample, kind="stable").tolist():
        count = _count(label, class_id)
        if count == labelled or count >= max_share * labelled:
            return False
        left -= count
        if left < max_share * labelled:
            break
    return True


def _count(label: np.ndarray, value: int) -> int:
    return cv2.countNonZero(cv2.compare(label, value, cv2.CMP_EQ))


def pad(image: np.ndarray, label: np.ndarray, size: int) -> Pair:
    """Pad to size x size on the right and below: the image with black, the label with 255."""
    height, width = label.shape
    below, right = max(size - height, 0), max(size - width, 0)
    if not below and not right:
        return image, label
    sides = (0, below, 0, right)
    return (
        cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=0),
        cv2.copyMakeBorder(label, *sides, cv2.BORDER_CONSTANT, value=IGNORE_LABEL),
    )


def random_flip(
    image: np.ndarray, label: np.ndarray, rng: np.random.Generator, probability: float = 0.5
) -> Pair:
    """Flip horizontally with a probability."""
    if rng.random() < probability:
        return cv2.flip(image, 1), cv2.flip(label, 1)
    return image, label


def scale_and_shift(image: np.ndarray, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Return clip(scale * image + shift, 0, 255), truncated to integers, for any uint8 array."""
    return cv2.LUT(image, _linear_table(scale, shift))


def scale_saturation(image: np.ndarray, scale: float) -> np.ndarray:
    """Multiply the saturation of an RGB image in 8-bit HSV."""
    return _change_hsv(image, 1, _linear_table(scale, 0.0))


def shift_hue(image: np.ndarray, shift: int) -> np.ndarray:
    """Rotate the hue of an RGB image by ``shift`` steps of 2 degrees."""
    return _change_hsv(image, 0, ((np.arange(256) + shift) % 180).astype(np.uint8))


def _change_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Apply a table to one channel of an RGB image in 8-bit HSV."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)


def _linear_table(scale: float, shift: float) -> np.ndarray:
    return np.clip(np.arange(256, dtype=np.float32) * scale + shift, 0, 255).astype(np.uint8)


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
