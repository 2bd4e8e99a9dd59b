"""Rows of buildings along the blocks, at the crossing streets and at the street's end."""

from dataclasses import replace

import numpy as np

from ..objects.buildings import Building, draw_building
from ..objects.facade import FacadeStyle
from .layout import BACKDROP, BUILDINGS, Scene, draw_plant, sample_plant
from .street import Side

# Storeys (minimum, maximum), lot length, and shares of shops, gable roofs and gaps.
ROWS = {
    "old": ((2, 4), (6, 13), 0.5, 0.6, 0.05),
    "modern": ((3, 8), (12, 26), 0.4, 0.0, 0.1),
    "suburb": ((1, 3), (8, 14), 0.03, 0.9, 0.25),
    "green": ((1, 4), (10, 20), 0.05, 0.6, 0.6),
    "industrial": ((1, 3), (14, 30), 0.1, 0.25, 0.25),
}


def _style(rng: np.random.Generator, character: str) -> tuple[FacadeStyle, float]:
    """Sample a facade, and the height of the gable roof (0 = flat)."""
    (low, high), _, shops, gables, _ = ROWS[character]
    storeys = int(rng.integers(low, high + 1))
    ground = "shop" if rng.random() < shops else "flat"
    ribbon = character in ("modern", "industrial") and rng.random() < 0.45
    window = (rng.uniform(0.9, 1.5), rng.uniform(1.25, 1.9))
    if ribbon:
        window = (rng.uniform(1.6, 2.2), rng.uniform(1.3, 2.0))
    style = FacadeStyle(
        storeys=storeys,
        storey=rng.uniform(2.7, 3.5),
        bay=max(window[0] + rng.uniform(0.5, 1.7), 1.7),
        window=window,
        ground=ground,
        balconies=bool(rng.random() < 0.2),
        ribbon=ribbon,
        cornice=rng.uniform(0.15, 0.7),
    )
    return style, (rng.uniform(1.6, 4.0) if rng.random() < gables and storeys < 5 else 0.0)


def add_buildings(scene: Scene, rng: np.random.Generator) -> None:
    """Add buildings along the blocks and crossing streets, the background and the street's end."""
    street = scene.street
    for side in street.sides:
        for number, (z0, z1) in enumerate(street.blocks):
            _add_row(scene, rng, side, z0 + side.sidewalk, z1 - side.sidewalk)
            if number:
                _add_crossing_row(scene, rng, side, z0 + side.sidewalk)
    _add_background(scene, rng)
    _add_street_end(scene, rng)


def _add_background(scene: Scene, rng: np.random.Generator) -> None:
    """Add distant trees and towers, so that the horizon is not empty in gaps."""
    street = scene.street
    for sign in (-1, 1):
        for z in np.arange(-55, 190, 11.0):
            x = sign * rng.uniform(64, 90)
            wood = sample_plant(rng, street, x, z + rng.uniform(-5, 5), rng.uniform(0.8, 1.5))
            scene.add(BACKDROP, draw_plant, wood, casts_shadow=False)
    for _ in range(rng.poisson(1.0)):
        style, _ = _style(rng, "modern")
        style = replace(style, storeys=int(rng.integers(8, 22)), ground="flat")
        x, z = rng.choice((-1, 1)) * rng.uniform(30, 80), rng.uniform(50, 170)
        wide, deep = rng.uniform(14, 30, 2)
        _add_building(
            scene, Building(x, x + wide, z, z + deep, style, ("near", "left", "right")), BACKDROP
        )


def _add_building(scene: Scene, building: Building, layer: int = BUILDINGS) -> None:
    scene.add(layer, draw_building, building)


def _add_row(scene: Scene, rng: np.random.Generator, side: Side, z0: float, z1: float) -> None:
    street = scene.street
    _, lots, _, _, gap = ROWS[side.character]
    line = street.building_line(side)
    style, roof = _style(rng, side.character)
    uniform = rng.random() < 0.4  # terraced houses
    z = z0
    while z < z1 - 4:
        length = min(rng.uniform(*lots), z1 - z)
        if not uniform or rng.random() < 0.1:
            style, roof = _style(rng, side.character)
        if rng.random() < gap:
            _add_trees(scene, rng, side, line, z, z + length)
            z += length
            continue
        back = line + side.sign * rng.uniform(9, 14)
        x0, x1 = sorted((line, back))
        front = "right" if side.sign < 0 else "left"
        detached = side.character in ("suburb", "green") and rng.random() < 0.6
        stop = z + length - (rng.uniform(1.5, 3.5) if detached else 0.0)
        fronts = (front, "near") if z == z0 or detached else (front,)
        if stop - z > 3:
            _add_building(
                scene,
                Building(
                    x0,
                    x1,
                    z,
                    stop,
                    style,
                    fronts,
                    roof,
                    int(rng.integers(0, 3)) if roof else 0,
                    awning=bool(rng.random() < 0.3),
                ),
            )
        z += length


def _add_trees(
    scene: Scene, rng: np.random.Generator, side: Side, line: float, z0: float, z1: float
) -> None:
    """Add trees in a gap between buildings."""
    for _ in range(max(int((z1 - z0) / 4), 1)):
        x = line + side.sign * rng.uniform(0.5, 14)
        tree = sample_plant(rng, scene.street, x, rng.uniform(z0, z1), rng.uniform(0.8, 1.3))
        scene.add(BUILDINGS, draw_plant, tree)


def _add_crossing_row(scene: Scene, rng: np.random.Generator, side: Side, z: float) -> None:
    """Add the buildings on the far side of a crossing street, which face the camera."""
    street = scene.street
    x = abs(street.building_line(side)) + 15
    while x < 62:
        width = rng.uniform(9, 18)
        if rng.random() < 0.25:
            tree = sample_plant(
                rng, street, side.sign * (x + 3), z + rng.uniform(1, 8), rng.uniform(0.8, 1.3)
            )
            scene.add(BUILDINGS, draw_plant, tree)
        else:
            style, roof = _style(rng, side.character)
            x0, x1 = sorted((side.sign * x, side.sign * (x + width)))
            _add_building(scene, Building(x0, x1, z + 0.5, z + 11, style, ("near",), roof))
        x += width


def _add_street_end(scene: Scene, rng: np.random.Generator) -> None:
    """Add buildings and trees at the street's end, and a row of taller trees behind them."""
    street = scene.street
    green = rng.random() < 0.5
    for x in np.arange(-96, 97, 12.0):
        tree = sample_plant(
            rng, street, x + rng.uniform(-3, 3), street.end + 30 + rng.uniform(0, 20), 1.3
        )
        scene.add(BACKDROP, draw_plant, tree, casts_shadow=False)
    x = -60.0
    while x < 60:
        width = rng.uniform(9, 20)
        if green or rng.random() < 0.3:
            for _ in range(2):
                tree = sample_plant(
                    rng,
                    street,
                    x + rng.uniform(0, width),
                    street.end + rng.uniform(5, 14),
                    rng.uniform(0.7, 1.2),
                )
                scene.add(BACKDROP, draw_plant, tree)
        else:
            character = (street.left if x < 0 else street.right).character
            style, roof = _style(rng, character)
            _add_building(
                scene,
                Building(x, x + width, street.end + 6, street.end + 18, style, ("near",), roof),
                BACKDROP,
            )
        x += width
