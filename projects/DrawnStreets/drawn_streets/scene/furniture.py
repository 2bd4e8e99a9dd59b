"""Placement of street furniture: lamps, signs, traffic lights, bollards, bins and wires."""

import numpy as np

from ..objects.street_furniture import (
    SHAPES,
    Box,
    Post,
    Wire,
    draw_box,
    draw_post,
    draw_wire,
    lamp_head,
)
from .layout import STREET, Scene, add_guard_rail, sidewalk_x
from .street import Side


def add_street_furniture(scene: Scene, rng: np.random.Generator) -> None:
    """Add all street furniture."""
    street = scene.street
    pitch, height = rng.uniform(18, 34), rng.uniform(5.5, 9.0)
    for side in street.sides:
        x = side.sign * (street.half_width + 0.45)
        back = side.sign * (street.half_width + side.depth - 0.25)
        if rng.random() < 0.75:
            for z in np.arange(rng.uniform(-30, 0), street.end, pitch):
                if street.on_land(z):
                    lamp = Post("lamp", x, z, -side.sign, height)
                    scene.lamps.append(lamp_head(lamp))
                    _add_post(scene, lamp)
        for _ in range(rng.poisson(4.0)):
            z = rng.uniform(-15, 60)
            if street.on_land(z):
                towards_us = side.sign == street.driving_side or rng.random() < 0.3
                heading = np.pi if towards_us else 0.0
                heading += rng.normal(0, 0.15) + (rng.random() < 0.1) * side.sign * np.pi / 2
                _add_post(
                    scene,
                    Post(
                        "sign",
                        x if rng.random() < 0.7 else back,
                        z,
                        -side.sign,
                        rng.uniform(2.3, 3.3),
                        heading,
                        SHAPES[rng.integers(len(SHAPES))],
                        int(rng.integers(4)),
                    ),
                )
        if rng.random() < 0.3:
            start = rng.uniform(-15, 30)
            for z in np.arange(start, start + rng.uniform(6, 25), rng.uniform(1.4, 2.6)):
                if street.on_land(z):
                    _add_post(
                        scene,
                        Post(
                            "bollard",
                            side.sign * (street.half_width + 0.35),
                            z,
                            -side.sign,
                            rng.uniform(0.8, 1.05),
                        ),
                    )
        if rng.random() < 0.35:
            for z in np.arange(rng.uniform(-20, 10), street.end, rng.uniform(22, 34)):
                if street.on_land(z):
                    _add_post(scene, Post("mast", back, z, -side.sign, rng.uniform(7, 10)))
        _add_boxes(scene, rng, side)
    _add_traffic_lights(scene, rng)
    if street.tram or rng.random() < 0.3:
        _add_wires(scene, rng)
    if rng.random() < 0.3:
        add_guard_rail(scene, rng)


def _add_boxes(scene: Scene, rng: np.random.Generator, side: Side) -> None:
    """Add bins, cabinets and benches on a sidewalk."""
    for _ in range(rng.poisson(2.0)):
        x, z = sidewalk_x(rng, scene.street, side), rng.uniform(-12, 50)
        if scene.street.on_land(z) and np.hypot(x - scene.street.camera_x, z) > 3:
            turn = 0.5 * np.pi * rng.integers(4) + rng.normal(0, 0.1)
            box = Box(x, z, rng.uniform(0.4, 0.9), rng.uniform(0.5, 1.4), turn)
            scene.add(STREET, draw_box, box)


def _add_wires(scene: Scene, rng: np.random.Generator) -> None:
    """Add wires across the street, and along one side."""
    street = scene.street
    left, right, height = (
        street.building_line(street.left),
        street.building_line(street.right),
        rng.uniform(6, 9),
    )
    for z in np.arange(rng.uniform(-10, 10), 70, rng.uniform(14, 40)):
        ends = (left, height, z), (right, height, z + rng.normal(0, 2))
        scene.add(STREET, draw_wire, Wire(*ends, rng.uniform(0.1, 0.6)), casts_shadow=False)
    x = rng.choice((-1, 1)) * (street.half_width + 0.6)
    for z in np.arange(-30, 90, 30.0):
        for drop in (0.0, 0.4, 1.1)[: int(rng.integers(1, 4))]:
            ends = (x, height - drop, z), (x, height - drop, z + 30)
            scene.add(STREET, draw_wire, Wire(*ends, 0.5), casts_shadow=False)


def _add_traffic_lights(scene: Scene, rng: np.random.Generator) -> None:
    """Add traffic lights at crossing streets or at a pedestrian crossing."""
    street = scene.street
    stops = [z1 for _, z1 in street.blocks[:3] if 6 < z1 < 75]
    if not stops and rng.random() < 0.45:
        stops = [rng.uniform(9, 40)]
    for stop in stops[:2]:
        if rng.random() < 0.25:
            continue
        state = int(rng.integers(4))
        tall = bool(rng.random() < 0.3)
        for side in street.sides:
            x = side.sign * (street.half_width + 0.5)
            own_direction = side.sign == street.driving_side
            kind = "gantry" if tall and own_direction else "lights"
            height = 5.6 if kind == "gantry" else rng.uniform(2.9, 3.6)
            _add_post(
                scene,
                Post(
                    kind,
                    x,
                    stop - 3.0,
                    -side.sign,
                    height,
                    np.pi if own_direction else rng.choice((0.0, np.pi)),
                    state=state,
                ),
            )
            if rng.random() < 0.6:
                heading = np.pi if rng.random() < 0.6 else -side.sign * np.pi / 2
                _add_post(
                    scene,
                    Post(
                        "lights",
                        x,
                        stop + 13.0,
                        -side.sign,
                        rng.uniform(2.9, 3.6),
                        heading,
                        state=state,
                    ),
                )


def _add_post(scene: Scene, post: Post) -> None:
    if np.hypot(post.x - scene.street.camera_x, post.z) > 3.0:
        scene.add(STREET, draw_post, post)
