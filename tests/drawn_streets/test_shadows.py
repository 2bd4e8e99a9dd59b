"""Cast shadows agree with geometry, on the ground and on walls."""

import numpy as np
import pytest

from drawn_streets.domains import TEMPERATE
from drawn_streets.imaging.shadows import shadow_mask
from drawn_streets.objects.buildings import Building
from drawn_streets.objects.facade import FacadeStyle
from drawn_streets.render.camera import Camera
from drawn_streets.render.canvas import Canvas
from drawn_streets.render.light import Light
from drawn_streets.scene.layout import SceneObject

SIZE = (200, 400)
HOUSE = Building(-30.0, -8.0, -20.0, 60.0, FacadeStyle(3), ("right",))


def scene(azimuth, elevation, paint):
    """Return the camera and the shadow mask of a street with one long house."""
    camera = Camera.looking(
        *SIZE, field_of_view=1.2, position=(0.0, 2.0, 0.0), yaw=0, pitch=-0.15, roll=0
    )
    light = Light.from_sky(np.deg2rad(azimuth), np.deg2rad(elevation), 1.0)
    canvas = Canvas(camera, light, np.random.default_rng(0), TEMPERATE)
    paint(canvas)
    obj = SceneObject(0, -19.0, 20.0, None, HOUSE, True)
    return camera, shadow_mask(canvas, [obj])


def ground(canvas):
    canvas.ids[:] = canvas.add_surface(0, canvas.camera.level(0.0))


def at(camera, mask, x, z, y=0.0):
    column, row = np.rint(camera.project(camera.to_camera(np.array([x, y, z])))).astype(int)
    return mask[row, column]


@pytest.mark.parametrize("elevation", [30.0, 55.0])
def test_shadow_length_is_height_over_tangent_of_elevation(elevation):
    camera, mask = scene(270.0, elevation, ground)  # the sun is to the left of the street, at -x
    reach = -8.0 + HOUSE.corners()[:, 1].max() / np.tan(np.deg2rad(elevation))
    assert at(camera, mask, reach - 0.6, 15.0) > 0.8
    assert at(camera, mask, reach + 0.6, 15.0) < 0.2


def test_shadow_with_sun_from_other_side_is_absent():
    camera, mask = scene(90.0, 40.0, ground)
    assert at(camera, mask, -5.0, 15.0) < 0.2 and at(camera, mask, 4.0, 15.0) < 0.2


def test_shadow_on_a_wall_ends_at_the_expected_height():
    def wall(canvas):
        normal = canvas.camera.rotation @ np.array([-1.0, 0.0, 0.0])
        point = canvas.camera.to_camera(np.array([6.0, 0.0, 20.0]))
        canvas.ids[:] = canvas.add_surface(2, canvas.camera.plane(point, normal))

    camera, mask = scene(270.0, 30.0, wall)
    edge = HOUSE.corners()[:, 1].max() - 14.0 * np.tan(np.deg2rad(30.0))
    assert at(camera, mask, 6.0, 15.0, edge - 0.5) > 0.8
    assert at(camera, mask, 6.0, 15.0, edge + 0.5) < 0.2
