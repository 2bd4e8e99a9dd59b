import cv2
import numpy as np
import pytest

from recyclelora.data import augmentation

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 100, 3), dtype=np.uint8)
LABEL = RNG.integers(0, 19, (60, 100), dtype=np.uint8)


@pytest.mark.parametrize(
    ("short", "long_max", "size"),
    [(30, 400, (30, 50)), (120, 400, (120, 200)), (120, 150, (90, 150)), (31, 400, (31, 52))],
)
def test_resize_short_side_respects_the_long_limit(short, long_max, size):
    image, label = augmentation.resize_short_side(IMAGE, LABEL, short, long_max)
    assert image.shape == (*size, 3) and label.shape == size
    assert set(np.unique(label)) <= set(range(19))
    image, label = augmentation.resize_short_side(
        IMAGE.transpose(1, 0, 2), LABEL.T, short, long_max
    )
    assert label.shape == size[::-1]


def test_random_crop_cuts_image_and_label_equally():
    places = np.arange(60 * 100).reshape(60, 100)
    image = np.dstack([places % 256, places // 256, LABEL]).astype(np.uint8)
    for seed in range(20):
        crop, label = augmentation.random_crop(image, LABEL, 32, np.random.default_rng(seed))
        assert label.shape == (32, 32) and np.array_equal(crop[..., 2], label)


def test_random_crop_of_small_image_keeps_its_size():
    crop, label = augmentation.random_crop(IMAGE, LABEL, 80, np.random.default_rng(0))
    assert label.shape == (60, 80) and crop.shape == (60, 80, 3)


def test_random_crop_avoids_windows_of_one_class():
    label = np.zeros((64, 640), np.uint8)
    label[:, 600:] = np.arange(64)[:, None] % 2 + 1
    label[:, 632:] = 255
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, crop = augmentation.random_crop(np.dstack([label] * 3), label, 64, rng)
        counts = np.bincount(crop.ravel(), minlength=256)[:19]
        found += counts.max() < 0.75 * counts.sum()
    # One window in 18 qualifies: about 2 of 40 without retries, about 18 with ten of them.
    assert found >= 10


def test_random_crop_stops_after_its_tries():
    label = np.zeros((20, 90), np.uint8)
    rng = np.random.default_rng(0)
    augmentation.random_crop(np.dstack([label] * 3), label, 20, rng, tries=10)
    expected = np.random.default_rng(0)
    for _ in range(11):  # ten refusals, and the window that is taken as it is
        expected.integers(1), expected.integers(71)
    assert rng.bit_generator.state == expected.bit_generator.state


def test_pad_fills_with_black_and_ignore():
    image, label = augmentation.pad(IMAGE, LABEL, 128)
    assert image.shape == (128, 128, 3) and label.shape == (128, 128)
    assert np.array_equal(image[:60, :100], IMAGE) and np.array_equal(label[:60, :100], LABEL)
    assert image[60:].max() == image[:, 100:].max() == 0
    assert label[60:].min() == label[:, 100:].min() == 255


def test_random_flip_mirrors_half_of_the_samples():
    rng = np.random.default_rng(0)
    flipped = 0
    for _ in range(200):
        image, label = augmentation.random_flip(IMAGE, LABEL, rng)
        if not np.array_equal(label, LABEL):
            assert np.array_equal(image, IMAGE[:, ::-1]) and np.array_equal(label, LABEL[:, ::-1])
            flipped += 1
    assert 75 < flipped < 125


def test_scale_and_shift_clips_and_truncates():
    values = np.arange(256, dtype=np.uint8)[None]
    expected = np.clip(values.astype(np.float32) * 1.3 - 20, 0, 255).astype(np.uint8)
    assert np.array_equal(augmentation.scale_and_shift(values, 1.3, -20.0), expected)


def test_hue_and_saturation_expect_rgb():
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
    assert augmentation.shift_hue(red, 60)[0, 0].tolist() == [0, 200, 0]  # 120 degrees: green
    assert augmentation.shift_hue(red, -60)[0, 0].tolist() == [0, 0, 200]
    assert augmentation.scale_saturation(red, 0.5)[0, 0].tolist() == [200, 100, 100]


def test_photometric_distortion_equals_published_bgr():
    """The steps written out in the published order on BGR, with the draws replayed."""
    for seed in range(30):
        rng, draw = np.random.default_rng(seed), np.random.default_rng(seed)
        result = augmentation.photometric_distortion(IMAGE, rng)
        image = np.ascontiguousarray(IMAGE[..., ::-1])

        def linear(array, alpha=1.0, beta=0.0):
            return np.clip(array.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

        if draw.integers(2):
            image = linear(image, beta=draw.uniform(-32, 32))
        first = draw.integers(2)
        if first and draw.integers(2):
            image = linear(image, alpha=draw.uniform(0.5, 1.5))
        if draw.integers(2):
            hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            hsv[..., 1] = linear(hsv[..., 1], alpha=draw.uniform(0.5, 1.5))
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        if draw.integers(2):
            hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(int) + draw.integers(-18, 18)) % 180
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        if not first and draw.integers(2):
            image = linear(image, alpha=draw.uniform(0.5, 1.5))
        assert np.array_equal(result[..., ::-1], image), seed
