"""The paper's training augmentation on NumPy arrays: pure functions of an explicit generator.

Images are (H, W, 3) uint8 RGB. Labels are (H, W) uint8 train ids, with 255 for ignored pixels. The
steps, their order and their ranges are those of mmsegmentation's pipeline, with which the published
models were trained. The random numbers differ, because each sample has its own generator.
"""

import cv2
import numpy as np

from .classes import CLASSES, IGNORE_LABEL

Pair = tuple[np.ndarray, np.ndarray]
Window = tuple[slice, slice]  # rows and columns


def resized_size(shape: tuple[int, int], short: int, long_max: int) -> tuple[int, int]:
    """Return the size of an image after resizing its short side.

    Parameters
    ----------
    shape : tuple of int
        The height and width of the image.
    short : int
        The length of the short side. It becomes smaller if the long side would exceed ``long_max``.
    long_max : int
        The largest length of the long side.

    Returns
    -------
    tuple of int
        Width and height.
    """
    height, width = shape
    scale = min(short / min(height, width), long_max / max(height, width))
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a label by nearest neighbour.

    Parameters
    ----------
    label : ndarray
        The label (H, W).
    size : tuple of int
        The new width and height.

    Returns
    -------
    ndarray
        The resized label.
    """
    return cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)


def resize_window(image: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """Return a window of a bilinearly resized image.

    Pixels below and right of the window are not computed. The result equals
    ``cv2.resize(image, size)[window]``.

    Parameters
    ----------
    image : ndarray
        The image (H, W, 3).
    size : tuple of int
        The width and height of the resized image.
    window : tuple of slice
        The rows and columns of the window.

    Returns
    -------
    ndarray
        The window.
    """
    shape = np.array(image.shape[:2])
    scale = np.array(size[::-1]) / shape
    # Each output pixel depends on two neighbours in the image.
    ends = np.ceil([part.stop for part in window] / scale).astype(int) + 2
    height, width = np.minimum(ends, shape).tolist()
    down, right = scale.tolist()
    # OpenCV copies the image if the size would stay the same.
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
    """Draw a random window of at most size x size.

    A window is accepted if it has at least two classes and the largest class covers less than
    ``max_class_share`` of the labelled pixels. After ``tries`` rejected windows, the next window is
    accepted unconditionally.

    Parameters
    ----------
    label : ndarray
        The label (H, W).
    size : int
        The largest side of the window.
    rng : Generator
        The random generator.
    table : ndarray, optional
        A table (256,) uint8 that converts the ids in ``label`` to train ids. Without it, ``label``
        contains train ids.
    max_class_share : float
        The share of the largest class from which a window is rejected.
    tries : int
        The largest number of rejected windows.

    Returns
    -------
    window : tuple of slice
        The rows and columns of the window.
    label : ndarray
        The train ids in the window.
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
    """Return whether a label has two or more classes and none of them dominates.

    The function first counts the classes that are frequent in a sample of the pixels. It stops when
    the remaining pixels are too few for that share. A histogram of all pixels takes five times as
    long.

    Parameters
    ----------
    label : ndarray
        Train ids.
    max_share : float
        The share of the labelled pixels that no class may reach.

    Returns
    -------
    bool
        True if at least two classes occur and each covers less than ``max_share`` of the labelled
        pixels.
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
    """Pad an image and its label on the right and at the bottom.

    Parameters
    ----------
    image : ndarray
        The image, which is padded with black.
    label : ndarray
        The label, which is padded with 255.
    size : int
        The height and width of the result.

    Returns
    -------
    image, label : ndarray
        The padded arrays.
    """
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
    """Flip an image and its label horizontally with a probability.

    Parameters
    ----------
    image, label : ndarray
        The arrays.
    rng : Generator
        The random generator.
    probability : float
        The probability.

    Returns
    -------
    image, label : ndarray
        The arrays, flipped or not.
    """
    if rng.random() < probability:
        return cv2.flip(image, 1), cv2.flip(label, 1)
    return image, label


def scale_and_shift(image: np.ndarray, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Return clip(scale * image + shift, 0, 255), truncated to integers.

    Parameters
    ----------
    image : ndarray
        An array of any shape, uint8.
    scale, shift : float
        The coefficients.

    Returns
    -------
    ndarray
        The result, uint8.
    """
    return cv2.LUT(image, _linear_table(scale, shift))


def scale_saturation(image: np.ndarray, scale: float) -> np.ndarray:
    """Multiply the saturation of an RGB image in 8-bit HSV.

    Parameters
    ----------
    image : ndarray
        The image.
    scale : float
        The factor.

    Returns
    -------
    ndarray
        The changed image.
    """
    return _change_hsv(image, 1, _linear_table(scale, 0.0))


def shift_hue(image: np.ndarray, shift: int) -> np.ndarray:
    """Rotate the hue of an RGB image.

    Parameters
    ----------
    image : ndarray
        The image.
    shift : int
        The number of steps of 2 degrees.

    Returns
    -------
    ndarray
        The changed image.
    """
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
    """Apply SSD's distortion of brightness, contrast, saturation and hue.

    Each of the four is applied with probability 1/2. Contrast is applied either before or after
    saturation and hue, each with probability 1/2.

    Parameters
    ----------
    image : ndarray
        The image, uint8 RGB.
    rng : Generator
        The random generator.
    brightness : float
        The largest change of the brightness.
    contrast, saturation : tuple of float
        The ranges of the factors.
    hue : int
        The hue is shifted by an integer in [-hue, hue).

    Returns
    -------
    ndarray
        The distorted image.
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
