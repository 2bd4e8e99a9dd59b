"""The training sample of a pair of files, computed step by step by Pillow and NumPy."""

import cv2
import numpy as np
from PIL import Image, ImageOps


def plain_sample(image_file, label_file, rng, *, crop, pad_to_crop=True):
    """What ``TrainMapper`` returns for a pair whose label has 8-bit train ids.

    Returns
    -------
    image, label : ndarray
        (3, H, W) and (H, W) uint8.
    """
    rng.integers(2**63 - 1)  # the seed of the sample
    image = np.array(ImageOps.exif_transpose(Image.open(image_file)).convert("RGB"))
    label = np.array(Image.open(label_file))
    short = int(rng.choice([crop * x // 10 for x in range(5, 21)]))
    height, width = label.shape
    scale = min(short / min(height, width), 4 * crop / max(height, width))
    size = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    image, label = _crop(image, label, crop, rng)
    if pad_to_crop:
        below, right = crop - label.shape[0], crop - label.shape[1]
        image = np.pad(image, ((0, below), (0, right), (0, 0)))
        label = np.pad(label, ((0, below), (0, right)), constant_values=255)
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    distorted = published_distortion(np.ascontiguousarray(image[..., ::-1]), rng)[..., ::-1]
    return distorted.transpose(2, 0, 1), label


def _crop(image, label, size, rng):
    height, width = label.shape
    for attempt in range(11):
        top = int(rng.integers(max(height - size, 0) + 1))
        left = int(rng.integers(max(width - size, 0) + 1))
        window = slice(top, top + size), slice(left, left + size)
        counts = np.bincount(label[window].ravel(), minlength=256)[:19]
        if attempt == 10 or (np.count_nonzero(counts) > 1 and counts.max() < 0.75 * counts.sum()):
            return image[window], label[window]


def published_distortion(image, rng):
    """The steps of the published photometric distortion, written out, on BGR."""

    def linear(values, alpha=1.0, beta=0.0):
        return np.clip(values.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    if rng.integers(2):
        image = linear(image, beta=rng.uniform(-32, 32))
    contrast_first = rng.integers(2)
    if contrast_first and rng.integers(2):
        image = linear(image, alpha=rng.uniform(0.5, 1.5))
    if rng.integers(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = linear(hsv[..., 1], alpha=rng.uniform(0.5, 1.5))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if rng.integers(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-18, 18)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not contrast_first and rng.integers(2):
        image = linear(image, alpha=rng.uniform(0.5, 1.5))
    return image
