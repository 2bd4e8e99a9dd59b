"""draw_street: sizes, determinism, class statistics, and labels that no domain changes."""

import numpy as np
import pytest

from drawn_streets import DOMAINS, draw_street
from drawn_streets.generate import sample_scene
from drawn_streets.scene.street import sample_camera
from recyclelora.data.classes import CLASSES

SIZE = {"height": 96, "width": 192}


@pytest.fixture(scope="module")
def many():
    """Return sixty small daytime pictures."""
    return [draw_street(3, index, "day", **SIZE) for index in range(60)]


def test_draw_street_returns_uint8_image_and_train_ids(many):
    for image, label in many:
        assert image.shape == (96, 192, 3) and image.dtype == np.uint8
        assert label.shape == (96, 192) and label.dtype == np.uint8
        assert set(np.unique(label)) <= set(range(19)) | {255}


@pytest.mark.parametrize(("height", "width"), [(60, 60), (360, 480), (200, 97)])
def test_draw_street_other_sizes_returns_that_size(height, width):
    image, label = draw_street(0, 1, "day", height, width)
    assert image.shape == (height, width, 3) and label.shape == (height, width)


def test_draw_street_same_arguments_is_deterministic():
    first, second = draw_street(5, 9, "rain", **SIZE), draw_street(5, 9, "rain", **SIZE)
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_draw_street_other_seed_or_index_changes_labels():
    base = draw_street(0, 0, "day", **SIZE)[1]
    assert not np.array_equal(base, draw_street(0, 1, "day", **SIZE)[1])
    assert not np.array_equal(base, draw_street(1, 0, "day", **SIZE)[1])


@pytest.mark.parametrize("domain", [name for name in DOMAINS if name != "day"])
def test_draw_street_domain_changes_image_but_no_label(domain):
    for index in range(2):
        day, labels = draw_street(0, index, "day", **SIZE)
        other, same = draw_street(0, index, domain, **SIZE)
        assert np.array_equal(labels, same)
        assert np.abs(day.astype(int) - other).mean() > 6


def test_draw_street_night_is_darker_and_fog_has_less_contrast():
    def sample_range(domain):
        return np.stack([draw_street(0, i, domain, **SIZE)[0] for i in range(6)]).astype(float)

    day = sample_range("day")
    assert sample_range("night").mean() < 0.6 * day.mean()
    assert sample_range("fog").std() < 0.8 * day.std()


def test_draw_street_day_has_balanced_channels(many):
    """No channel is lost: over many streets, red, green and blue have similar means."""
    means = np.mean([image.mean((0, 1)) for image, _ in many], 0)
    assert means.min() > 60 and means.max() < 1.25 * means.min()


def test_draw_street_sixty_scenes_show_every_class(many):
    shown = np.array([np.bincount(label.ravel(), minlength=256)[:19] > 0 for _, label in many]).sum(
        0
    )
    assert {name: int(n) for name, n in zip(CLASSES, shown, strict=True) if n < 5} == {}


def test_draw_street_class_shares_are_those_of_streets(many):
    pixels = sum(np.bincount(label.ravel(), minlength=256) for _, label in many)[:19]
    share = dict(zip(CLASSES, pixels / pixels.sum(), strict=True))
    for name, low, high in (
        ("road", 0.18, 0.45),
        ("building", 0.12, 0.35),
        ("vegetation", 0.07, 0.25),
        ("sky", 0.05, 0.25),
        ("car", 0.03, 0.16),
        ("sidewalk", 0.02, 0.12),
    ):
        assert low < share[name] < high, name


def test_draw_street_sky_is_above_and_road_below_horizon():
    for index in range(12):
        plan = np.random.default_rng((3, index, 0))
        camera = sample_camera(plan, sample_scene(plan).street, **SIZE)
        label = draw_street(3, index, "day", **SIZE)[1]
        slack = 3 + 0.5 * 192 * abs(np.tan(np.arcsin(camera.rotation[0, 1])))
        rows = np.arange(96)[:, None] * np.ones((1, 192))
        assert rows[label == 10].max(initial=0) < camera.horizon() + slack
        assert rows[label == 0].min(initial=96) > camera.horizon() - slack


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        ((0, 0, "day", 8, 64), "pixels"),
        ((-1, 0, "day", 64, 64), "negative"),
        ((0, 0, "dawn", 64, 64), "dawn"),
    ],
)
def test_draw_street_invalid_argument_raises(request_, word):
    with pytest.raises(ValueError, match=word):
        draw_street(*request_)
