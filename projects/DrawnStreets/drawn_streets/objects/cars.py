"""The shapes of cars, in metres, front towards +z."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..render.mesh import Mesh, MeshBuilder

SILL = 0.2  # ground clearance in metres


@dataclass(frozen=True)
class CarShape:
    """The shape of a car in metres; ``rear``, ``front`` and ``bonnet`` are shares of the length.

    The roof extends from ``rear`` to ``front``, both measured from the tail.
    """

    length: float
    width: float
    height: float
    belt: float
    rear: float
    front: float
    bonnet: float
    blind: bool = False  # without rear side windows

    @property
    def half(self) -> float:
        return 0.5 * self.width

    @property
    def nose(self) -> float:
        return 0.74 * self.belt

    @property
    def cowl(self) -> float:
        """z of the lower edge of the windscreen."""
        return (0.5 - self.bonnet) * self.length

    @property
    def ends(self) -> tuple[float, float]:
        return -0.5 * self.length, 0.5 * self.length


CARS = {
    "hatch": CarShape(4.0, 1.76, 1.48, 0.92, 0.10, 0.58, 0.24),
    "sedan": CarShape(4.6, 1.80, 1.44, 0.92, 0.24, 0.60, 0.26),
    "estate": CarShape(4.7, 1.80, 1.48, 0.93, 0.06, 0.60, 0.26),
    "suv": CarShape(4.5, 1.88, 1.70, 1.06, 0.08, 0.60, 0.24),
    "van": CarShape(5.0, 1.95, 2.05, 1.15, 0.02, 0.74, 0.14, blind=True),
    "city": CarShape(3.5, 1.65, 1.50, 0.92, 0.08, 0.62, 0.20),
    "coupe": CarShape(4.4, 1.80, 1.32, 0.86, 0.26, 0.56, 0.30),
    "minivan": CarShape(4.7, 1.86, 1.72, 1.00, 0.04, 0.70, 0.16),
    "crossover": CarShape(4.4, 1.86, 1.60, 1.00, 0.12, 0.60, 0.24),
    "jeep": CarShape(4.2, 1.85, 1.82, 1.10, 0.03, 0.62, 0.27),
    "saloon": CarShape(5.0, 1.86, 1.46, 0.94, 0.22, 0.58, 0.28),
    "panel": CarShape(4.4, 1.80, 1.85, 1.05, 0.02, 0.64, 0.18, blind=True),
}


def car_mesh(car: CarShape) -> Mesh:
    """Build a car from wheels, lower body, cabin, windows, lamps and plates."""
    b = MeshBuilder()
    rear, front = car.ends
    radius = 0.32 if car.height < 1.6 else 0.36
    axles = (rear + 0.19 * car.length, front - 0.185 * car.length)
    b.wheels(car.half - 0.03, axles, radius)
    _lower_body(b, car)
    flank_wheels(b, car.half, axles, radius)
    _cabin(b, car)
    _side_windows(b, car)
    _lamps_and_plates(b, car)
    return b.mesh()


def _lower_body(b: MeshBuilder, car: CarShape) -> None:
    """Add the body below the windows as faces between cross sections from nose to tail."""
    (rear, front), half, belt, nose = car.ends, car.half, car.belt, car.nose
    inside = np.array([0.0, 0.5, 0.0])
    sections = [  # z, half width, height of the top
        (front, half * 0.76, nose * 0.84),
        (front - 0.06, half * 0.86, nose * 0.95),
        (front - 0.22, half * 0.96, nose * 1.02),
        (0.5 * (front + car.cowl), half, 0.5 * (nose + belt) + 0.03),
        (car.cowl + 0.05, half, belt * 0.98),
        (car.cowl - 0.3, half, belt),
        (rear + 0.35, half * 0.99, belt),
        (rear + 0.08, half * 0.94, belt * 0.98),
        (rear, half * 0.84, belt * 0.92),
    ]
    crease = 0.62 * nose
    for (za, wa, ta), (zb, wb, tb) in pairwise(sections):
        b.face([(-wa, ta, za), (wa, ta, za), (wb, tb, zb), (-wb, tb, zb)], "body", inside=inside)
        bands = ((SILL, crease, 0.76), (crease, 0.86 * belt, 0.92), (0.86 * belt, 9.0, 1.06))
        for low, high, tone in bands:
            flank = [
                (wa, min(low, ta), za),
                (wb, min(low, tb), zb),
                (wb, min(high, tb), zb),
                (wa, min(high, ta), za),
            ]
            b.mirrored_faces(flank, "body", inside=inside, tone=tone)
        skirt = [(wa, SILL, za), (wb, SILL, zb), (wb, SILL + 0.1, zb), (wa, SILL + 0.1, za)]
        b.mirrored_faces(skirt, "trim", inside=inside, detail=True)
    # The cabin is painted after the mirrors, so it hides them from behind.
    z = car.cowl - 0.12
    for low, high in ((half - 0.02, half + 0.2), (-half - 0.2, -half + 0.02)):
        b.box((low, car.belt, z), (high, car.belt + 0.15, z + 0.12), "body", tone=0.8, detail=True)
    for z, w, top in (sections[0], sections[-1]):
        cap = [(-w, SILL, z), (w, SILL, z), (w, top, z), (-w, top, z)]
        b.face(cap, "body", inside=inside, tone=0.92)


def flank_wheels(b: MeshBuilder, half: float, axles: Sequence[float], radius: float) -> None:
    """Add arch, tyre and rim on both sides at each axle."""
    arch = np.linspace(-0.15, np.pi + 0.15, 9)
    full = np.linspace(0, 2 * np.pi, 14, endpoint=False)

    def disc(angles: np.ndarray, x: float, z: float, size: float) -> np.ndarray:
        y = radius + size * radius * np.sin(angles)
        return np.stack([np.full(len(angles), x), y, z + size * radius * np.cos(angles)], 1)

    for z in axles:
        inside = np.array([0, radius, z])
        b.mirrored_faces(disc(arch, half + 0.005, z, 1.16), "dark", inside=inside)
        for size, slot in ((1.0, "tyre"), (0.66, "rim"), (0.50, "hub"), (0.2, "rim")):
            b.mirrored_faces(disc(full, half + 0.01, z, size), slot, inside=inside)


def _cabin_side(car: CarShape) -> np.ndarray:
    """Return the cabin's right side (4, 3): low front, low rear, top rear, top front."""
    tail = car.ends[0]
    base, top = 0.94 * car.half, (0.9 if car.blind else 0.76) * car.half
    foot = tail + (0.02 if car.rear < 0.15 else 0.12 * car.length)
    back, front = tail + car.rear * car.length, tail + car.front * car.length
    return np.array(
        [
            (base, car.belt, car.cowl),
            (base, car.belt, foot),
            (top, car.height - 0.06, back),
            (top, car.height - 0.06, front),
        ]
    )


def _cabin(b: MeshBuilder, car: CarShape) -> None:
    """Add pillars, roof, windscreen and rear window; the upper part of the glass is paler."""
    side = _cabin_side(car)
    mirror = np.array([-1.0, 1, 1])
    inside = side.mean(0) * (0, 1, 1)
    b.mirrored_faces(side, "body", inside=inside, tone=0.95)
    edge = 0.82 * side[2:] + 0.0
    edge[:, 1] = car.height
    edge[:, 2] = side[2:, 2] + np.array([0.12, -0.12])
    b.face([edge[0], edge[1], edge[1] * mirror, edge[0] * mirror], "body", inside=inside, tone=1.05)
    b.mirrored_faces([side[2], side[3], edge[1], edge[0]], "body", inside=inside)
    for low, high, rim, share in ((0, 3, 1, 0.95), (1, 2, 0, 0.86)):
        brow = [side[high], side[high] * mirror, edge[rim] * mirror, edge[rim]]
        b.face(brow, "body", inside=inside)
        pane = np.array([side[low] * mirror, side[low], side[high], side[high] * mirror])
        b.face(pane, "body", inside=inside, tone=0.9)
        glass = pane.mean(0) + (pane - pane.mean(0)) * share
        b.face(glass, "glass", inside=inside)
        left = 0.55 * glass[0] + 0.45 * glass[3]
        right = 0.8 * glass[1] + 0.2 * glass[2]
        b.face([left, right, glass[2], glass[3]], "sheen", inside=inside, detail=True)


def _side_windows(b: MeshBuilder, car: CarShape) -> None:
    """Add side windows and door gaps."""
    side, half = _cabin_side(car), car.half
    inside = side.mean(0) * (0, 1, 1)
    for start, end in ((0.66, 0.94),) if car.blind else ((0.06, 0.50), (0.54, 0.93)):
        low = [side[1] + (side[0] - side[1]) * t for t in (start, end)]
        high = [side[2] + (side[3] - side[2]) * t for t in (end - 0.01, start + 0.02)]
        pane = np.array(low + high)
        pane = pane.mean(0) + (pane - pane.mean(0)) * (1.0, 0.82, 0.98)
        b.mirrored_faces(pane, "glass", inside=inside)
        upper = [0.5 * (pane[0] + pane[3]), 0.3 * pane[1] + 0.7 * pane[2], pane[2], pane[3]]
        b.mirrored_faces(upper, "sheen", inside=inside, detail=True)
    for share in (0.51, 0.97):
        z = side[1, 2] + (side[0, 2] - side[1, 2]) * share
        x, top = half + 0.004, 0.97 * car.belt
        gap = [(x, 0.28, z), (x, 0.28, z + 0.025), (x, top, z + 0.025), (x, top, z)]
        b.mirrored_faces(gap, "dark", inside=np.zeros(3), detail=True)


def _lamps_and_plates(b: MeshBuilder, car: CarShape) -> None:
    """Add lamps, grille, bumpers and number plates."""
    half, nose, belt = car.half, car.nose, car.belt
    rear, front = car.ends[0] - 0.005, car.ends[1] + 0.005
    inside = np.array([0.0, 0.5, 0.0])
    b.end_panel(front, -half * 0.76, half * 0.76, SILL, SILL + 0.16, "trim")
    b.end_panel(front, -half * 0.40, half * 0.40, nose * 0.52, nose * 0.74, "dark")
    b.end_panel(front, -0.26, 0.26, nose * 0.40, nose * 0.40 + 0.12, "plate")
    b.end_panel(rear, -half * 0.82, half * 0.82, SILL, SILL + 0.18, "trim")
    b.end_panel(rear, -0.26, 0.26, belt * 0.60, belt * 0.60 + 0.12, "plate")
    for sign in (1, -1):
        low, high = sorted((sign * half * 0.76, sign * half * 0.46))
        b.end_panel(front, low, high, nose * 0.60, nose * 0.80, "head", detail=False)
        low, high = sorted((sign * half * 0.83, sign * half * 0.60))
        b.end_panel(rear, low, high, belt * 0.60, belt * 0.86, "tail", detail=False)
    for z, inner, outer, low, high, slot in (
        (front, 0.77, 0.97, nose * 0.62, nose * 0.82, "head"),
        (rear, 0.85, 0.95, belt * 0.6, belt * 0.86, "tail"),
    ):
        back = z - np.sign(z) * 0.22
        wrap = [(half * inner, low, z), (half * outer, low, back), (half * outer, high, back)]
        b.mirrored_faces([*wrap, (half * inner, high, z)], slot, inside=inside, detail=True)
