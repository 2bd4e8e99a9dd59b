"""Placement of trams, vehicles in their lanes, parked vehicles and two-wheelers."""

import numpy as np

from ..objects.people import Cycle, draw_cycle
from ..objects.vehicles import KINDS, Vehicle, draw_vehicle
from ..types import Footprints
from .layout import STREET, Scene
from .street import Side

CLEAR = 6.5  # distance ahead of the camera without vehicles, in metres


def _add_vehicle(
    scene: Scene,
    rng: np.random.Generator,
    kind: str,
    x: float,
    z: float,
    heading: float,
    occupied: Footprints,
) -> bool:
    """Add a vehicle unless it would touch another or the camera; return whether it was added."""
    shape = KINDS[kind][rng.integers(len(KINDS[kind]))]
    item = Vehicle(kind, shape, x, z, heading, rng.uniform(0.95, 1.06) if kind == "car" else 1.0)
    spot = item.footprint()
    low, high = spot.min(0)[[0, 2]] - 0.3, spot.max(0)[[0, 2]] + 0.5
    camera = np.array([scene.street.camera_x, 0.0])
    if (camera > low - 0.6).all() and (camera < high + 1.5).all():
        return False
    if scene.street.view in ("ahead", "oblique"):
        if abs(x - camera[0]) < 1.9 and high[1] > -2 and low[1] < CLEAR:
            return False
    elif np.linalg.norm(np.maximum(np.maximum(low - camera, camera - high), 0)) < 2.2:
        return False
    if any((low < b).all() and (high > a).all() for a, b in occupied):
        return False
    occupied.append((low, high))
    scene.add(STREET, draw_vehicle, item)
    return True


def add_traffic(scene: Scene, rng: np.random.Generator) -> Footprints:
    """Add trams, vehicles, parked vehicles and two-wheelers; return the ground that they occupy."""
    street = scene.street
    occupied: Footprints = []
    if street.tram:
        _add_tram(scene, rng, occupied)
    bus = rng.random() < 0.6
    trucks = 0.8 if rng.random() < 0.5 else 0.15
    flow = rng.choice((0.4, 1.0, 2.2))
    for i in range(street.lanes):
        x = (i - 0.5 * (street.lanes - 1)) * street.lane_width
        heading = 0.0 if np.sign(x or 1) == street.driving_side else np.pi
        for z in np.cumsum(rng.exponential(24 / flow, 16)) + rng.uniform(-30, 10):
            if z > street.end - 8:
                break
            kind = "truck" if rng.random() < 0.16 * trucks else "car"
            if bus and z > 8 and rng.random() < 0.3:
                kind, bus = "bus", False
            if rng.random() < 0.12:
                add_cycle(
                    scene,
                    rng,
                    x + rng.normal(0, 0.4),
                    z,
                    heading,
                    occupied,
                    motor=rng.random() < 0.4,
                )
            else:
                _add_vehicle(
                    scene,
                    rng,
                    kind,
                    x + rng.normal(0, 0.15),
                    z,
                    heading + rng.normal(0, 0.02),
                    occupied,
                )
    for side in street.sides:
        _add_parked_vehicles(scene, rng, side, occupied, bus, trucks)
    for _ in range(rng.poisson(0.5)):
        _add_crossing_vehicle(scene, rng, occupied)
    for _ in range(rng.poisson(1.4)):
        side = street.sides[int(rng.integers(2))]
        heading = 0.0 if side.sign == street.driving_side else np.pi
        x = side.sign * (street.half_width - (2.6 if side.parking else 0.6))
        add_cycle(
            scene,
            rng,
            x,
            rng.uniform(5, 45),
            heading + rng.normal(0, 0.1),
            occupied,
            motor=rng.random() < 0.25,
        )
    return occupied


def _add_tram(scene: Scene, rng: np.random.Generator, occupied: Footprints) -> None:
    """Add a tram where there is room, in up to four attempts."""
    sign = int(rng.choice((-1, 1)))
    heading = 0.0 if sign == scene.street.driving_side else np.pi
    x = sign * 0.5 * scene.street.lane_width
    for _ in range(4):
        if _add_vehicle(scene, rng, "train", x, rng.uniform(20, 75), heading, occupied):
            return


def _add_parked_vehicles(
    scene: Scene,
    rng: np.random.Generator,
    side: Side,
    occupied: Footprints,
    bus: bool,
    trucks: float,
) -> None:
    street = scene.street
    if side.parking:
        x = side.sign * (street.half_width - 1.05)
        for z0, z1 in street.blocks:
            for z in np.arange(z0 + 7, z1 - 6, 5.6):
                if rng.random() < side.parking:
                    kind = "truck" if rng.random() < 0.05 * trucks else "car"
                    if rng.random() < 0.05:
                        add_cycle(
                            scene,
                            rng,
                            x,
                            z,
                            side.sign * np.pi / 2 + rng.normal(0, 0.3),
                            occupied,
                            motor=True,
                            rider=False,
                        )
                        continue
                    turned = np.pi * (rng.random() < 0.3) + (
                        0.0 if side.sign == street.driving_side else np.pi
                    )
                    _add_vehicle(
                        scene,
                        rng,
                        kind,
                        x + rng.normal(0, 0.08),
                        z + rng.normal(0, 0.2),
                        turned,
                        occupied,
                    )
    elif bus and rng.random() < 0.6:
        heading = 0.0 if side.sign == street.driving_side else np.pi
        _add_vehicle(
            scene,
            rng,
            "bus",
            side.sign * (street.half_width - 1.5),
            rng.uniform(14, 45),
            heading,
            occupied,
        )


def _add_crossing_vehicle(scene: Scene, rng: np.random.Generator, occupied: Footprints) -> None:
    """Add a car that turns into or out of a crossing street."""
    gaps = [z1 for _, z1 in scene.street.blocks if 12 < z1 < scene.street.end - 12]
    if gaps:
        z = gaps[int(rng.integers(len(gaps)))] + rng.uniform(3, 6)
        heading = rng.choice((-1, 1)) * np.pi / 2 + rng.normal(0, 0.15)
        _add_vehicle(scene, rng, "car", rng.uniform(-14, 14), z, heading, occupied)


def add_cycle(
    scene: Scene,
    rng: np.random.Generator,
    x: float,
    z: float,
    heading: float,
    occupied: Footprints,
    *,
    motor: bool,
    rider: bool = True,
    base: float = 0.0,
) -> None:
    """Add a two-wheeler unless it would touch occupied ground or the camera."""
    low, high = np.array([x - 0.5, z - 1.1]), np.array([x + 0.5, z + 1.1])
    if np.hypot(x - scene.street.camera_x, z) < 4 or any(
        (low < b).all() and (high > a).all() for a, b in occupied
    ):
        return
    occupied.append((low, high))
    scene.add(
        STREET,
        draw_cycle,
        Cycle(bool(motor), x, z, heading, rider, rng.uniform(0, 2 * np.pi), base),
    )
