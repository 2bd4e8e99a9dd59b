"""Vehicles: pose, footprint, colours and drawing."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..classes import BUS, CAR, TRAIN, TRUCK
from ..render import textures
from ..render.canvas import Canvas
from ..render.mesh import Mesh, draw_mesh, to_world
from .cars import CARS, car_mesh
from .ground import draw_contact_shadow
from .heavy_vehicles import HEAVY_VEHICLES

LABELS = {"car": CAR, "truck": TRUCK, "bus": BUS, "train": TRAIN}
KINDS = {
    "car": tuple(CARS),
    "truck": ("box", "lorry", "pickup"),
    "bus": ("bus",),
    "train": ("tram",),
}


@dataclass(frozen=True)
class Vehicle:
    """A vehicle of a kind from ``KINDS`` at (x, z); heading 0 drives away from the camera."""

    kind: str
    shape: str
    x: float
    z: float
    heading: float = 0.0
    scale: float = 1.0
    base: float = 0.0

    def footprint(self, y: float = 0.02) -> np.ndarray:
        """Return the four corners of the footprint, (4, 3), at height ``y``."""
        (x0, _, z0), (x1, _, z1) = _bounds(self.shape)
        flat = np.array([[x0, y, z0], [x1, y, z0], [x1, y, z1], [x0, y, z1]])
        return to_world(flat, (self.x, self.base, self.z), self.heading, self.scale)

    def corners(self) -> np.ndarray:
        """Return the corners of the box that casts the vehicle's shadow."""
        top = _bounds(self.shape)[1][1]
        return np.concatenate([self.footprint(0.1), self.footprint(top * 0.92)])


@lru_cache(maxsize=32)
def _bounds(shape: str) -> np.ndarray:
    vertices = vehicle_mesh(shape).vertices
    return np.stack([vertices.min(0), vertices.max(0)])


@lru_cache(maxsize=32)
def vehicle_mesh(shape: str) -> Mesh:
    """Return the mesh of a shape in ``KINDS``."""
    return car_mesh(CARS[shape]) if shape in CARS else HEAVY_VEHICLES[shape]()


def _paints(canvas: Canvas, vehicle: Vehicle) -> dict[str, tuple]:
    rng, palette = canvas.colour_rng, canvas.palette
    if vehicle.kind == "car":
        body = np.array(palette.cars[rng.integers(len(palette.cars))], float) * rng.uniform(
            0.85, 1.08
        )
    else:
        liveries = (
            (188, 44, 40),
            (226, 220, 208),
            (40, 84, 150),
            (224, 180, 50),
            (60, 120, 80),
            (222, 226, 228),
            (240, 130, 40),
            (92, 40, 90),
        )
        body = np.array(liveries[rng.integers(len(liveries))], float)
    cargos = (
        (226, 226, 222),
        (206, 202, 190),
        (60, 110, 70),
        (44, 76, 132),
        (170, 60, 48),
        (120, 122, 126),
    )
    cargo = np.array(cargos[rng.integers(len(cargos))], float)
    logo = rng.uniform(30, 235, 3) if rng.random() < 0.7 else cargo * 0.94
    glass = np.array([38.0, 44, 50]) * rng.uniform(0.8, 1.3)
    braking = rng.random() < 0.25
    emission = 255 if canvas.lit > 0 else 0
    tail = (
        (236, 40, 34, max(emission, 90 if braking else 0)) if braking or emission else (150, 26, 26)
    )
    return {
        "body": tuple(np.clip(body, 12, 245)),
        "cargo": tuple(cargo),
        "logo": tuple(logo),
        "glass": tuple(glass),
        "sheen": tuple(glass + np.array([44, 50, 58])),
        "trim": (42, 42, 44),
        "dark": (22, 22, 24),
        "tyre": (30, 30, 31),
        "rim": (140, 142, 146),
        "hub": (64, 65, 68),
        "plate": (214, 206, 150),
        "head": (255, 250, 232, emission) if emission else (206, 210, 212),
        "tail": tail,
        "sign": (250, 170, 50, 200) if emission else (60, 48, 30),
    }


def draw_vehicle(canvas: Canvas, vehicle: Vehicle) -> None:
    """Paint the contact shadow, the mesh, and reflections on the body."""
    draw_contact_shadow(canvas, vehicle.footprint(vehicle.base + 0.01), 0.75)
    paints = _paints(canvas, vehicle)
    drawn = draw_mesh(
        canvas,
        vehicle_mesh(vehicle.shape),
        paints,
        LABELS[vehicle.kind],
        (vehicle.x, vehicle.base, vehicle.z),
        vehicle.heading,
        vehicle.scale,
    )
    if drawn and np.ptp(drawn[1][:, 1]) > 30:
        canvas.grain(drawn[0], drawn[1], textures.gloss())
