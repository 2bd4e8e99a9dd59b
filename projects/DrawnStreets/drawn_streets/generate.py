"""One street scene: an image and its label map as a pure function of (seed, index, domain)."""

import numpy as np

from .domains import Domain, find_domain, sample_range
from .imaging.camera_pipeline import photograph
from .imaging.lens import Lens
from .imaging.sky import paint_sky
from .imaging.weather import radiance
from .objects.ground import paint_ground
from .render.canvas import Canvas
from .render.light import Light
from .render.textures import PAVINGS
from .scene.building_rows import add_buildings
from .scene.furniture import add_street_furniture
from .scene.layout import Scene, add_blocks, add_boundaries, add_greenery
from .scene.pedestrians import add_people
from .scene.road_markings import add_markings
from .scene.street import sample_camera, sample_street
from .scene.traffic import add_traffic

GENERATOR_VERSION = 3  # increases whenever the images of a seed change


def sample_scene(rng: np.random.Generator) -> Scene:
    """Sample a street and its objects, without colours and weather."""
    scene = Scene(sample_street(rng))
    add_blocks(scene, rng)
    scene.ground.road = str(rng.choice(("asphalt", "setts", "concrete"), p=(0.84, 0.06, 0.1)))
    scene.ground.paving = str(rng.choice(list(PAVINGS), p=(0.28, 0.14, 0.24, 0.14, 0.2)))
    add_markings(scene, rng)
    add_buildings(scene, rng)
    add_greenery(scene, rng)
    add_boundaries(scene, rng)
    add_street_furniture(scene, rng)
    occupied = add_traffic(scene, rng)
    add_people(scene, rng, occupied)
    return scene


def check_request(seed: int, index: int, height: int, width: int) -> None:
    """Raise a ValueError if no image can be drawn for these numbers."""
    if min(seed, index) < 0:
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    if not 32 <= min(height, width) <= max(height, width) <= 8192:
        raise ValueError(f"height and width must be from 32 to 8192 pixels, got {height} x {width}")


def draw_street(
    seed: int, index: int, domain: str | Domain = "day", height: int = 512, width: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one street scene.

    Parameters
    ----------
    seed, index : int
        Select the scene; not negative. A pair has the same labels in every domain.
    domain : str or Domain
        A name from ``DOMAINS`` or a ``Domain``.
    height, width : int
        Size of the image in pixels, from 32 to 8192.

    Returns
    -------
    image : ndarray
        RGB, (height, width, 3) uint8.
    label : ndarray
        Cityscapes train ids, (height, width) uint8. The label of objects without a class (the
        bonnet of the camera's own car, bins, cabinets, benches) is 255.

    Raises
    ------
    ValueError
        If the domain is unknown, the seed or the index is negative, or a size is out of range.

    Examples
    --------
    >>> image, label = draw_street(seed=0, index=7, domain="fog", height=64, width=128)
    >>> image.shape, label.shape, label.dtype
    ((64, 128, 3), (64, 128), dtype('uint8'))
    """
    domain = find_domain(domain) if isinstance(domain, str) else domain
    check_request(seed, index, height, width)
    # Independent random streams: only the layout's can change labels.
    layout_rng, colour_rng, imaging_rng = (
        np.random.default_rng((seed, index, stream)) for stream in range(3)
    )
    scene = sample_scene(layout_rng)
    camera = sample_camera(layout_rng, scene.street, height, width)
    lens = Lens.sample(layout_rng, scene.street)
    strength = sample_range(imaging_rng, domain.sun)
    strength = 0.0 if strength < 0.4 else 0.25 + 0.75 * strength  # overcast, or visible shadows
    light = Light.from_sky(
        imaging_rng.uniform(0, 2 * np.pi),
        np.deg2rad(imaging_rng.uniform(*domain.elevation)),
        strength,
    )
    darkness, snow = (
        sample_range(imaging_rng, domain.darkness),
        sample_range(imaging_rng, domain.snow),
    )
    lit = 0.45 * darkness if darkness > 0.2 else 0.0
    canvas = Canvas(
        camera, light, colour_rng, domain.palette.sample(colour_rng), snow=snow, lit=lit
    )
    paint_sky(canvas, sample_range(imaging_rng, domain.clouds), strength, imaging_rng)
    paint_ground(canvas, scene.ground)
    for obj in scene.back_to_front(camera):
        obj.draw(canvas, obj.item)
    lens.draw_bonnet(canvas)
    lamps = scene.lamps if lit else []
    picture = radiance(canvas, domain, darkness, scene.shadow_casters(camera), lamps, imaging_rng)
    picture, label = lens.apply(picture, canvas.label_image())
    return photograph(picture, domain, darkness, imaging_rng), label
