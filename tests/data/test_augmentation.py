import cv2
import numpy as np
import pytest

from recyclelora.data import augmentation

from ..support.plain_pipeline import published_distortion

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 100, 3), dtype=np.uint8)
LABEL = RNG.integers(0, 19, (60, 100), dtype=np.uint8)


@pytest.mark.parametrize(
    ("short", "long_max", "size"),
    [(30, 400, (30, 50)), (120, 400, (120, 200)), (120, 150, (90, 150)), (31, 400, (31, 52))],
)
def test_resized_size_respects_the_long_limit(short, long_max, size):
    assert augmentation.resized_size((60, 100), short, long_max) == size[::-1]
    assert augmentation.resized_size((100, 60), short, long_max) == size


def test_resize_label_keeps_the_ids():
    label = augmentation.resize_label(LABEL, (150, 90))
    assert label.shape == (90, 150) and set(np.unique(label)) <= set(range(19))


def test_resize_window_equals_the_window_of_the_whole():
    rng = np.random.default_rng(1)
    for number in range(500):
        shape = rng.integers(1, 130, 2)
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        # Also sizes close to 1 and, by chance, 1 itself, which OpenCV handles separately.
        factor = rng.uniform(0.2, 2.5) if number % 2 else rng.choice([0.5, 0.98, 1, 1.01, 2])
        height, width = np.maximum(shape * factor, 1).astype(int).tolist()
        ends = rng.integers(1, (height + 1, width + 1)).tolist()
        starts = rng.integers(0, ends).tolist()
        window = tuple(map(slice, starts, ends))
        expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)[window]
        found = augmentation.resize_window(image, (width, height), window)
        assert np.array_equal(found, expected), (shape, height, width, window)


def test_random_window_is_that_of_its_label():
    table = np.arange(256, dtype=np.uint8)[::-1].copy()
    for seed in range(20):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        window, label = augmentation.random_window(LABEL, 32, rngs[0])
        assert label.shape == (32, 32) and np.array_equal(LABEL[window], label)
        window, label = augmentation.random_window(LABEL, 32, rngs[1], table)
        assert np.array_equal(255 - LABEL[window], label)


def test_random_window_of_small_label_keeps_its_size():
    window, label = augmentation.random_window(LABEL, 80, np.random.default_rng(0))
    assert label.shape == (60, 80) and IMAGE[window].shape == (60, 80, 3)


def test_random_window_avoids_those_of_one_class():
    label = np.zeros((64, 640), np.uint8)
    label[:, 600:] = np.arange(64)[:, None] % 2 + 1
    label[:, 632:] = 255
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, crop = augmentation.random_window(label, 64, rng)
        counts = np.bincount(crop.ravel(), minlength=256)[:19]
        found += counts.max() < 0.75 * counts.sum()
    # One window in 18 qualifies: about 2 of 40 without retries, about 18 with ten of them.
    assert found >= 10


def test_random_window_stops_after_its_tries():
    label = np.zeros((20, 90), np.uint8)
    rng = np.random.default_rng(0)
    augmentation.random_window(label, 20, rng, tries=10)
    expected = np.random.default_rng(0)
    for _ in range(11):  # ten rejected windows, and one that is accepted unconditionally
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
        image = published_distortion(np.ascontiguousarray(IMAGE[..., ::-1]), draw)
        assert np.array_equal(result[..., ::-1], image), seed
