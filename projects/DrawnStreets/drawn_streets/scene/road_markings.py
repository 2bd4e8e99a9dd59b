"""Road markings: lines, zebra crossings and arrows; also repairs, manholes and rails."""

import numpy as np

from ..objects.ground import Mark, rectangle
from .layout import Scene
from .street import Street


def add_markings(scene: Scene, rng: np.random.Generator) -> None:
    """Add all markings of the carriageway."""
    street, marks = scene.street, scene.ground.marks
    wear = rng.uniform(0.55, 0.95)
    driving = 0.5 * street.lanes * street.lane_width
    for z0, z1 in street.blocks:
        _add_repairs(marks, rng, street, z0, z1)
        for i in range(1, street.lanes):
            x = -driving + i * street.lane_width
            centre = 2 * i == street.lanes
            if centre and rng.random() < 0.3:
                for shift in (-0.13, 0.13):
                    marks.append(
                        Mark(
                            rectangle(x + shift - 0.05, x + shift + 0.05, z0 + 6, z1 - 6),
                            "white",
                            wear,
                        )
                    )
                continue
            period, dash = (6.0, 3.0) if centre else (9.0, 3.0)
            for z in np.arange(z0 + 5, z1 - 5, period):
                marks.append(Mark(rectangle(x - 0.07, x + 0.07, z, z + dash), "white", wear))
        for side in street.sides:
            gutter = sorted(
                (
                    side.sign * street.half_width,
                    side.sign * (street.half_width - rng.uniform(0.1, 0.5)),
                )
            )
            marks.append(Mark(rectangle(*gutter, z0 + 2, z1 - 2), "dark", rng.uniform(0.05, 0.35)))
            edge = side.sign * (street.half_width - 0.3)
            if side.parking:
                for z in np.arange(z0 + 6, z1 - 5, 5.6):
                    a, b = sorted(
                        (side.sign * street.half_width, side.sign * (street.half_width - 2.1))
                    )
                    marks.append(Mark(rectangle(a, b, z, z + 0.1), "white", wear * 0.8))
            elif rng.random() < 0.5:
                colour = "yellow" if rng.random() < 0.5 else "white"
                for shift in (0.0, 0.22)[: int(rng.integers(1, 3))]:
                    x = edge - side.sign * shift
                    marks.append(Mark(rectangle(x - 0.05, x + 0.05, z0 + 4, z1 - 4), colour, wear))
        _add_crossing(marks, rng, street, z1, wear)
    if street.tram:
        for track in (-0.5 * street.lane_width, 0.5 * street.lane_width):
            marks.append(Mark(rectangle(track - 1.1, track + 1.1, -50, street.end), "patch", 0.5))
            for shift in (-0.72, 0.72):
                x = track + shift
                marks.append(Mark(rectangle(x - 0.05, x + 0.05, -50, street.end), "rail", 0.9))
                marks.append(Mark(rectangle(x + 0.05, x + 0.09, -50, street.end), "dark", 0.9))


def _add_repairs(
    marks: list[Mark], rng: np.random.Generator, street: Street, z0: float, z1: float
) -> None:
    """Add asphalt repairs, manhole covers and a coloured cycle lane."""
    if rng.random() < 0.15:
        marks.append(
            Mark(rectangle(street.half_width - 1.6, street.half_width, z0, z1), "bay", 0.8)
        )
    for _ in range(rng.poisson((z1 - z0) / 14)):
        x, z = rng.uniform(-street.half_width, street.half_width - 1), rng.uniform(z0, z1)
        patch = rectangle(x, x + rng.uniform(0.5, 2.2), z, z + rng.uniform(0.6, 7))
        marks.append(Mark(patch, "patch" if rng.random() < 0.6 else "dark", rng.uniform(0.2, 0.6)))
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for _ in range(rng.poisson((z1 - z0) / 22)):
        centre = np.array(
            [rng.uniform(-street.half_width + 0.6, street.half_width - 0.6), rng.uniform(z0, z1)]
        )
        marks.append(Mark(centre + 0.32 * np.stack([np.cos(turn), np.sin(turn)], 1), "dark", 0.7))


def _add_crossing(
    marks: list[Mark], rng: np.random.Generator, street: Street, z: float, wear: float
) -> None:
    """Add a stop line, and sometimes a zebra crossing and an arrow, before ``z``."""
    if z > street.end - 12 or rng.random() < 0.15:
        return
    if rng.random() < 0.6:
        for x in np.arange(-street.half_width + 0.4, street.half_width - 0.5, 1.0):
            marks.append(Mark(rectangle(x, x + 0.5, z - 6, z - 3), "white", wear))
    a, b = sorted((0.1 * street.driving_side, street.driving_side * (street.half_width - 0.4)))
    marks.append(Mark(rectangle(a, b, z - 7.6, z - 7.2), "white", wear))
    x = street.driving_side * 0.5 * street.lane_width
    shaft = [
        (x - 0.08, z - 14),
        (x + 0.08, z - 14),
        (x + 0.08, z - 11),
        (x + 0.3, z - 11),
        (x, z - 9.6),
        (x - 0.3, z - 11),
        (x - 0.08, z - 11),
    ]
    if rng.random() < 0.5:
        marks.append(Mark(np.array(shaft), "white", wear))
