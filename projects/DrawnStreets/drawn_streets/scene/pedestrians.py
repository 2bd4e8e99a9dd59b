"""Placement of pedestrians, and of bicycles parked at the kerb."""

import numpy as np

from ..objects.ground import KERB
from ..objects.people import Person, draw_person
from ..types import Footprints
from .layout import STREET, Scene, sidewalk_x
from .traffic import add_cycle


def add_people(scene: Scene, rng: np.random.Generator, occupied: Footprints) -> None:
    """Add people on the sidewalks and crossing the road, and parked bicycles."""
    street = scene.street
    busy = rng.choice((0.5, 1.5, 3.5))
    for side in street.sides:
        for _ in range(rng.poisson(3.2 * busy)):
            z = rng.exponential(22) - (2.0 if rng.random() < 0.7 else 16.0)
            if not street.on_land(z):
                continue
            x, heading = sidewalk_x(rng, street, side), rng.choice((0, np.pi)) + rng.normal(0, 0.3)
            for i in range(int(rng.choice((1, 1, 1, 2, 2, 3, 4)))):
                _add_person(
                    scene, rng, x + 0.5 * (i % 2), z + 0.5 * (i // 2), heading, rng.random() < 0.8
                )
        if rng.random() < 0.5:
            z, lean = rng.uniform(-8, 30), rng.uniform(0.2, np.pi / 2)
            for i in range(int(rng.integers(1, 6))):
                motor = rng.random() < 0.15
                add_cycle(
                    scene,
                    rng,
                    side.sign * (street.half_width + 0.75),
                    z + i * 0.9,
                    lean + rng.normal(0, 0.1),
                    [],
                    motor=motor,
                    rider=False,
                    base=KERB,
                )
    for _ in range(rng.poisson(0.35 * busy)):
        heading = rng.choice((-1, 1)) * np.pi / 2
        spot = np.array([rng.uniform(-street.half_width, street.half_width), rng.uniform(8, 40)])
        if not any((spot > low).all() and (spot < high).all() for low, high in occupied):
            _add_person(scene, rng, spot[0], spot[1], heading, True, base=0.0)


def _add_person(
    scene: Scene,
    rng: np.random.Generator,
    x: float,
    z: float,
    heading: float,
    walks: bool,
    base: float = KERB,
) -> None:
    height = rng.normal(1.72, 0.08) if rng.random() < 0.9 else rng.uniform(1.0, 1.45)
    person = Person(
        x,
        z,
        heading,
        height,
        rng.uniform(0, 2 * np.pi),
        rng.uniform(0.3, 0.55) if walks else rng.uniform(0, 0.1),
        rng.uniform(0, 1.2) * (rng.random() < 0.4),
        bool(rng.random() < 0.3),
        bool(rng.random() < 0.35),
        base,
    )
    if np.hypot(x - scene.street.camera_x, z) > 3.0:
        scene.add(STREET, draw_person, person)
