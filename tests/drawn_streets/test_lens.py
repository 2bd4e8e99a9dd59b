"""Lens distortion and the bonnet of the camera's car."""

import numpy as np
import pytest

from drawn_streets.classes import IGNORE_LABEL
from drawn_streets.domains import TEMPERATE
from drawn_streets.imaging.lens import DISTORTIONS, Lens
from drawn_streets.render.camera import Camera
from drawn_streets.render.canvas import Canvas
from drawn_streets.render.light import Light
from drawn_streets.scene.street import sample_street


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_lens_distorts_image_and_label_alike(distortion):
    label = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((40, 40), np.uint8))
    picture = np.repeat(label[..., None], 3, 2).astype(np.float32)
    shown, bent = Lens(distortion).apply(picture, label)
    whole = shown == np.rint(shown)  # pixels that are not interpolated
    assert whole.mean() > 0.9
    assert (shown[..., 0] == bent)[whole.all(2)].all()
    corners = np.s_[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (bent[corners] == label[corners]).all()


def test_lens_without_distortion_returns_its_input():
    picture, label = np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8)
    shown, bent = Lens().apply(picture, label)
    assert shown is picture and bent is label


def drawn_lenses():
    """Return the streets and lenses of 200 plans."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        street = sample_street(rng)
        yield street, Lens.sample(rng, street)


def test_bonnet_appears_in_some_car_views_only():
    seen = [street.view for street, lens in drawn_lenses() if lens.bonnet]
    assert 15 <= len(seen) <= 60
    assert set(seen) == {"ahead", "oblique"}


def test_bonnet_covers_the_bottom_with_ignore_label():
    lens = next(lens for _, lens in drawn_lenses() if lens.bonnet)
    camera = Camera.looking(
        64, 128, field_of_view=1.2, position=(0.0, 1.5, 0.0), yaw=0, pitch=0, roll=0
    )
    light = Light.from_sky(0.0, 0.8, 1.0)
    canvas = Canvas(camera, light, np.random.default_rng(0), TEMPERATE)
    canvas.ids[:] = canvas.add_surface(0, camera.level(0.0))
    lens.draw_bonnet(canvas)
    ignored = canvas.label_image() == IGNORE_LABEL
    assert ignored[-1, 30:-30].all() and not ignored[:50].any()
