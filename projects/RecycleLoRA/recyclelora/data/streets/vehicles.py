"""Cars, trucks, buses and trams as meshes in metres, front towards +z."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import textures
from .canvas import Canvas
from .ground import contact
from .mesh import Mesh, MeshBuilder, draw_mesh, placed

LABELS = {"car": 13, "truck": 14, "bus": 15, "train": 16}
# length, width, height, belt height, roof start and end (share of length from the rear), bonnet length
CARS = {
    "hatch": (4.0, 1.76, 1.48, 0.92, 0.10, 0.58, 0.24),
    "sedan": (4.6, 1.80, 1.44, 0.92, 0.24, 0.60, 0.26),
    "estate": (4.7, 1.80, 1.48, 0.93, 0.06, 0.60, 0.26),
    "suv": (4.5, 1.88, 1.70, 1.06, 0.08, 0.60, 0.24),
    "van": (5.0, 1.95, 2.05, 1.15, 0.02, 0.74, 0.14),
    "city": (3.5, 1.65, 1.50, 0.92, 0.08, 0.62, 0.20),
}
KINDS = {
    "car": tuple(CARS),
    "truck": ("box", "lorry", "pickup"),
    "bus": ("bus",),
    "train": ("tram",),
}


@dataclass(frozen=True)
class Vehicle:
    """``kind`` one of KINDS; at (x, z) on the carriageway; heading 0 drives away from us."""

    kind: str
    shape: str
    x: float
    z: float
    heading: float = 0.0
    scale: float = 1.0
    base: float = 0.0

    def footprint(self, y: float = 0.02) -> np.ndarray:
        low, high = (
            vehicle_mesh(self.shape).vertices.min(0),
            vehicle_mesh(self.shape).vertices.max(0),
        )
        flat = np.array(
            [
                [x, y, z]
                for x, z in (
                    (low[0], low[2]),
                    (high[0], low[2]),
                    (high[0], high[2]),
                    (low[0], high[2]),
                )
            ]
        )
        return placed(flat, (self.x, self.base, self.z), self.heading, self.scale)

    def corners(self) -> np.ndarray:
        """Corners of a box a little smaller than the vehicle, for its shadow."""
        top = vehicle_mesh(self.shape).vertices[:, 1].max()
        return np.concatenate([self.footprint(0.1), self.footprint(top * 0.92)])


@lru_cache(maxsize=32)
def vehicle_mesh(shape: str) -> Mesh:
    if shape in CARS:
        return _car(*CARS[shape], van=shape == "van")
    return {"box": _box_truck, "lorry": _lorry, "pickup": _pickup, "bus": _bus, "tram": _tram}[
        shape
    ]()


def _car(length, width, height, belt, rear, front, bonnet, van=False) -> Mesh:
    """Lower body in stations along z, a cabin that leans inwards, then everything stuck on."""
    b = MeshBuilder()
    half, z0, z1 = width / 2, -length / 2, length / 2
    radius = 0.32 if height < 1.6 else 0.36
    axles = (z0 + 0.19 * length, z1 - 0.185 * length)
    sill, nose = 0.2, belt * 0.72
    cowl = z1 - bonnet * length
    deck = belt * (0.99 if rear > 0.2 else 1.0)
    stations = [  # z, half width, top
        (z1, half * 0.80, nose * 0.88),
        (z1 - 0.16, half * 0.95, nose),
        (cowl + 0.1, half, belt * 0.96),
        (cowl - 0.3, half, belt),
        (z0 + 0.3, half * 0.99, deck),
        (z0, half * 0.88, deck * 0.95),
    ]
    inside = np.array([0.0, 0.5, 0.0])
    b.wheels(half - 0.03, axles, radius)
    crease = 0.62 * nose
    for (za, wa, ta), (zb, wb, tb) in zip(stations, stations[1:], strict=False):
        b.face([(-wa, ta, za), (wa, ta, za), (wb, tb, zb), (-wb, tb, zb)], "body", inside=inside)
        for low, high, tone in ((sill, crease, 0.78), (crease, 2.0, 1.0)):
            b.both(
                [(wa, low, za), (wb, low, zb), (wb, min(high, tb), zb), (wa, min(high, ta), za)],
                "body",
                inside=inside,
                tone=tone,
            )
        b.both(
            [(wa, sill, za), (wb, sill, zb), (wb, sill + 0.1, zb), (wa, sill + 0.1, za)],
            "trim",
            inside=inside,
            detail=True,
        )
    for z, w, top in (stations[0], stations[-1]):
        b.face(
            [(-w, sill, z), (w, sill, z), (w, top, z), (-w, top, z)],
            "body",
            inside=inside,
            tone=0.92,
        )
    _wheel_arches(b, half, axles, radius)
    _cabin(b, length, half, belt, deck, height, z0 + rear * length, z0 + front * length, cowl, van)
    _car_ends(b, half, nose, deck, z0, z1, sill)
    return b.mesh()


def _wheel_arches(b: MeshBuilder, half, axles, radius):
    turn = np.linspace(-0.15, np.pi + 0.15, 9)
    full = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for z in axles:
        arch = np.stack(
            [
                np.full(9, half + 0.005),
                radius + 1.16 * radius * np.sin(turn),
                z + 1.16 * radius * np.cos(turn),
            ],
            1,
        )
        b.both(arch, "dark", inside=np.array([0, radius, z]))
        for size, slot in ((1.0, "tyre"), (0.66, "rim"), (0.50, "hub"), (0.2, "rim")):
            disc = np.stack(
                [
                    np.full(14, half + 0.01),
                    radius + radius * size * np.sin(full),
                    z + radius * size * np.cos(full),
                ],
                1,
            )
            b.both(disc, slot, inside=np.array([0, radius, z]))


def _cabin(b: MeshBuilder, length, half, belt, deck, height, back, front, cowl, van):
    """Glass house: windscreen, roof, rear window, side windows between pillars."""
    base, top = half * 0.94, half * (0.9 if van else 0.76)
    rear_base = -length / 2 + (0.02 if back < -length / 2 + 0.15 * length else 0.12 * length)
    inside = np.array([0.0, 0.5 * (belt + height), 0.5 * (back + front)])
    screen = [
        (-base, belt, cowl),
        (base, belt, cowl),
        (top, height - 0.04, front),
        (-top, height - 0.04, front),
    ]
    window = [
        (-base, deck, rear_base),
        (base, deck, rear_base),
        (top, height - 0.05, back),
        (-top, height - 0.05, back),
    ]
    side = [
        (base, belt, cowl),
        (base, deck, rear_base),
        (top, height - 0.05, back),
        (top, height - 0.04, front),
    ]
    b.both(side, "body", inside=inside, tone=0.95)
    b.face(
        [
            (-top, height - 0.04, front),
            (top, height - 0.04, front),
            (top, height - 0.05, back),
            (-top, height - 0.05, back),
        ],
        "body",
        inside=inside,
        tone=1.05,
    )
    for quad, share in ((screen, 0.95), (window, 0.85)):
        quad = np.array(quad)
        b.face(quad, "body", inside=inside, tone=0.9)
        middle = quad.mean(0)
        glass = middle + (quad - middle) * share
        b.face(glass, "glass", inside=inside)
        upper = np.array(
            [0.55 * glass[0] + 0.45 * glass[3], 0.8 * glass[1] + 0.2 * glass[2], glass[2], glass[3]]
        )
        b.face(upper, "sheen", inside=inside, detail=True)
    rows = np.array(side)
    low_at = lambda t: rows[1] + (rows[0] - rows[1]) * t  # noqa: E731
    high_at = lambda t: rows[2] + (rows[3] - rows[2]) * t  # noqa: E731
    spans = ((0.06, 0.50), (0.54, 0.93)) if not van else ((0.66, 0.94),)
    for t0, t1 in spans:
        quad = np.array([low_at(t0), low_at(t1), high_at(t1 - 0.01), high_at(t0 + 0.02)])
        middle = quad.mean(0)
        quad = middle + (quad - middle) * (1.0, 0.82, 0.98)
        b.both(quad, "glass", inside=inside)
        upper = np.array(
            [0.5 * (quad[0] + quad[3]), 0.3 * quad[1] + 0.7 * quad[2], quad[2], quad[3]]
        )
        b.both(upper, "sheen", inside=inside, detail=True)
    for t in (0.51, 0.97):
        foot = low_at(t)
        door = [
            (half + 0.004, 0.28, foot[2]),
            (half + 0.004, 0.28, foot[2] + 0.025),
            (half + 0.004, belt * 0.97, foot[2] + 0.025),
            (half + 0.004, belt * 0.97, foot[2]),
        ]
        b.both(door, "dark", inside=np.zeros(3), detail=True)
    mirror = cowl - 0.12
    for sign in (1, -1):
        b.box(
            (sign * half - 0.02, belt, mirror),
            (sign * half + sign * 0.2 + 0.02, belt + 0.15, mirror + 0.12),
            "body",
            tone=0.8,
            detail=True,
        )


def _car_ends(b: MeshBuilder, half, nose, deck, z0, z1, sill):
    """Lamps, grille, bumpers and number plates."""
    front, rear = z1 + 0.005, z0 - 0.005
    b.end_panel(front, -half * 0.78, half * 0.78, sill, sill + 0.16, "trim")
    b.end_panel(front, -half * 0.42, half * 0.42, nose * 0.52, nose * 0.74, "dark")
    b.end_panel(front, -0.26, 0.26, nose * 0.40, nose * 0.40 + 0.12, "plate")
    b.end_panel(rear, -half * 0.84, half * 0.84, sill, sill + 0.18, "trim")
    b.end_panel(rear, -0.26, 0.26, deck * 0.62, deck * 0.62 + 0.12, "plate")
    for sign in (1, -1):
        outer, inner = sign * half * 0.79, sign * half * 0.48
        b.end_panel(
            front,
            min(outer, inner),
            max(outer, inner),
            nose * 0.60,
            nose * 0.80,
            "head",
            detail=False,
        )
        outer, inner = sign * half * 0.87, sign * half * 0.62
        b.end_panel(
            rear,
            min(outer, inner),
            max(outer, inner),
            deck * 0.60,
            deck * 0.86,
            "tail",
            detail=False,
        )
    inside = np.array([0.0, 0.5, 0.0])
    b.both(
        [
            (half * 0.805, nose * 0.60, z1),
            (half * 0.95, nose * 0.64, z1 - 0.15),
            (half * 0.955, nose * 0.84, z1 - 0.16),
            (half * 0.805, nose * 0.80, z1),
        ],
        "head",
        inside=inside,
        detail=True,
    )
    b.both(
        [
            (half * 0.885, deck * 0.6, z0),
            (half * 0.97, deck * 0.62, z0 + 0.22),
            (half * 0.97, deck * 0.86, z0 + 0.22),
            (half * 0.885, deck * 0.86, z0),
        ],
        "tail",
        inside=inside,
        detail=True,
    )


def _truck_cab(b: MeshBuilder, half, height, z0, z1):
    b.box((-half, 0.45, z0), (half, height, z1), "body")
    b.end_panel(
        z1 + 0.01, -half * 0.9, half * 0.9, height * 0.56, height * 0.9, "glass", detail=False
    )
    b.end_panel(z1 + 0.015, -half * 0.9, half * 0.2, height * 0.74, height * 0.9, "sheen")
    b.end_panel(z1 + 0.01, -half * 0.6, half * 0.6, height * 0.32, height * 0.46, "dark")
    b.end_panel(z1 + 0.01, -half, half, 0.45, 0.75, "trim")
    for sign in (1, -1):
        b.end_panel(
            z1 + 0.02,
            sign * half * 0.72 - 0.18,
            sign * half * 0.72 + 0.18,
            0.8,
            1.0,
            "head",
            detail=False,
        )
        b.box(
            (sign * (half + 0.14) - 0.1, height * 0.6, z1 - 0.1),
            (sign * (half + 0.14) + 0.1, height * 0.82, z1),
            "dark",
            detail=True,
        )
    b.side_panel(half + 0.01, height * 0.56, height * 0.88, z0 + 0.3, z1 - 0.15, "glass")
    b.side_panel(half + 0.01, height * 0.2, height * 0.9, z0 + 0.12, z0 + 0.15, "dark")


def _cargo(b: MeshBuilder, half, low, height, z0, z1):
    b.box((-half, low, z0), (half, height, z1), "cargo")
    b.side_panel(
        half + 0.01,
        low + 0.35 * (height - low),
        low + 0.72 * (height - low),
        z0 + 0.12 * (z1 - z0),
        z0 + 0.78 * (z1 - z0),
        "logo",
        detail=False,
    )
    b.side_panel(half + 0.012, low, low + 0.12, z0, z1, "trim")
    b.end_panel(z0 - 0.01, -0.03, 0.03, low, height, "dark")
    b.end_panel(z0 - 0.01, -half, half, low, low + 0.15, "trim")
    for sign in (1, -1):
        b.end_panel(
            z0 - 0.02,
            sign * half * 0.8 - 0.2,
            sign * half * 0.8 + 0.2,
            low - 0.2,
            low - 0.02,
            "tail",
            detail=False,
        )
    b.end_panel(z0 - 0.02, -0.3, 0.3, low - 0.2, low - 0.04, "plate")


def _box_truck() -> Mesh:
    b = MeshBuilder()
    b.wheels(1.12, (-2.2, 2.4), 0.45, 0.3)
    b.box((-1.0, 0.5, -3.6), (1.0, 0.95, 3.4), "dark")
    _truck_cab(b, 1.1, 2.5, 1.9, 3.6)
    _cargo(b, 1.2, 0.95, 3.4, -3.6, 1.8)
    return b.mesh()


def _lorry() -> Mesh:
    b = MeshBuilder()
    b.wheels(1.22, (-4.9, -3.7, 2.6, 5.4), 0.5, 0.35)
    b.box((-1.0, 0.5, -6.4), (1.0, 1.1, 6.0), "dark")
    _truck_cab(b, 1.22, 3.2, 4.4, 6.5)
    _cargo(b, 1.26, 1.1, 3.9, -6.5, 4.1)
    return b.mesh()


def _pickup() -> Mesh:
    b = MeshBuilder()
    b.wheels(1.0, (-1.9, 1.9), 0.4, 0.28)
    b.box((-0.9, 0.4, -2.9), (0.9, 0.8, 2.9), "dark")
    b.box((-1.0, 0.8, -2.9), (1.0, 1.4, 0.7), "cargo")
    b.side_panel(1.01, 0.8, 0.88, -2.9, 0.7, "trim")
    for sign in (1, -1):
        b.end_panel(-2.92, sign * 0.8 - 0.15, sign * 0.8 + 0.15, 0.55, 0.75, "tail", detail=False)
    b.end_panel(-2.92, -0.9, 0.9, 0.9, 1.3, "trim")
    _truck_cab(b, 0.98, 2.2, 0.8, 2.9)
    return b.mesh()


def _window_row(b: MeshBuilder, half, low, high, z0, z1, count, gap=0.12):
    pitch = (z1 - z0) / count
    for i in range(count):
        start, end = z0 + i * pitch + gap / 2, z0 + (i + 1) * pitch - gap / 2
        b.side_panel(half + 0.012, low, high, start, end, "glass")
        b.side_panel(half + 0.014, low + 0.55 * (high - low), high, start, end, "sheen")


def _bus() -> Mesh:
    b = MeshBuilder()
    half, length, height = 1.26, 11.5, 3.1
    z0, z1 = -length / 2, length / 2
    b.box((-half, 0.35, z0), (half, height, z1), "body")
    b.side_panel(half + 0.006, 1.25, 2.55, z0 + 0.1, z1 - 0.1, "dark", detail=False)
    b.side_panel(half + 0.006, 0.35, 0.62, z0, z1, "trim")
    b.side_panel(half + 0.006, 0.86, 1.02, z0, z1, "logo")
    _window_row(b, half, 1.32, 2.45, z0 + 0.2, z1 - 0.2, 8)
    for door in (z1 - 1.5, -0.6):
        b.face(
            [
                (half + 0.016, 0.42, door),
                (half + 0.016, 0.42, door + 1.2),
                (half + 0.016, 2.5, door + 1.2),
                (half + 0.016, 2.5, door),
            ],
            "glass",
            inside=np.zeros(3),
            detail=True,
        )
    b.end_panel(z1 + 0.01, -half * 0.94, half * 0.94, 1.15, 2.5, "glass", detail=False)
    b.end_panel(z1 + 0.014, -half * 0.94, half * 0.1, 1.9, 2.5, "sheen")
    b.end_panel(z1 + 0.014, -half * 0.8, half * 0.8, 2.58, 2.95, "sign")
    b.end_panel(z0 - 0.01, -half * 0.85, half * 0.85, 1.6, 2.5, "glass", detail=False)
    b.end_panel(z0 - 0.01, -half * 0.5, half * 0.5, 0.6, 1.2, "dark")
    for sign in (1, -1):
        b.end_panel(
            z1 + 0.012, sign * 0.95 - 0.22, sign * 0.95 + 0.22, 0.7, 0.95, "head", detail=False
        )
        b.end_panel(
            z0 - 0.012, sign * 1.05 - 0.14, sign * 1.05 + 0.14, 0.7, 1.4, "tail", detail=False
        )
    _wheel_arches(b, half, (z0 + 2.7, z1 - 2.6), 0.48)
    return b.mesh()


def _tram() -> Mesh:
    b = MeshBuilder()
    half, height = 1.25, 3.4
    inside = np.array([0.0, 1.5, 0.0])
    for z0, z1 in ((-14.0, -4.9), (-4.5, 4.5), (4.9, 14.0)):
        b.box((-half, 0.25, z0), (half, height, z1), "body")
        b.side_panel(half + 0.006, 1.15, 2.75, z0, z1, "dark", detail=False)
        b.side_panel(half + 0.006, 0.25, 0.55, z0, z1, "trim")
        b.side_panel(half + 0.007, 0.7, 0.95, z0, z1, "logo")
        _window_row(b, half, 1.25, 2.6, z0 + 0.2, z1 - 0.2, 5)
        b.side_panel(
            half + 0.016, 0.4, 2.7, (z0 + z1) / 2 - 0.7, (z0 + z1) / 2 + 0.7, "sheen", tone=0.7
        )
    b.box((-half + 0.15, 0.4, -4.9), (half - 0.15, height - 0.2, -4.5), "dark")
    b.box((-half + 0.15, 0.4, 4.5), (half - 0.15, height - 0.2, 4.9), "dark")
    for sign in (1, -1):
        end, tip = 14.0 * sign, 14.9 * sign
        low = [
            (-half * 0.7, 0.3, tip),
            (half * 0.7, 0.3, tip),
            (half * 0.75, 1.3, tip),
            (-half * 0.75, 1.3, tip),
        ]
        b.face(low, "body", inside=inside)
        glass = [
            (-half * 0.75, 1.3, tip),
            (half * 0.75, 1.3, tip),
            (half * 0.85, 2.8, end + 0.35 * sign),
            (-half * 0.85, 2.8, end + 0.35 * sign),
        ]
        b.face(glass, "glass", inside=inside)
        top = [
            (-half * 0.85, 2.8, end + 0.35 * sign),
            (half * 0.85, 2.8, end + 0.35 * sign),
            (half, height, end),
            (-half, height, end),
        ]
        b.face(top, "sign", inside=inside)
        cheek = [
            (half * 0.75, 0.3, tip),
            (half, 0.3, end),
            (half, height, end),
            (half * 0.85, 2.8, end + 0.35 * sign),
            (half * 0.75, 1.3, tip),
        ]
        b.both(cheek, "body", inside=inside, tone=0.9)
        for flank in (1, -1):
            b.end_panel(
                tip + 0.01 * sign,
                flank * 0.6 - 0.18,
                flank * 0.6 + 0.18,
                0.75,
                0.95,
                "head" if sign > 0 else "tail",
                detail=False,
            )
    b.box((-0.6, height, -2.0), (0.6, height + 0.35, 2.0), "trim")
    return b.mesh()


def _paints(canvas: Canvas, vehicle: Vehicle) -> dict[str, tuple]:
    look, palette = canvas.look, canvas.palette
    if vehicle.kind == "car":
        body = np.array(palette.cars[look.integers(len(palette.cars))], float) * look.uniform(
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
        body = np.array(liveries[look.integers(len(liveries))], float)
    cargos = (
        (226, 226, 222),
        (206, 202, 190),
        (60, 110, 70),
        (44, 76, 132),
        (170, 60, 48),
        (120, 122, 126),
    )
    cargo = np.array(cargos[look.integers(len(cargos))], float)
    logo = look.uniform(30, 235, 3) if look.random() < 0.7 else cargo * 0.94
    glass = np.array([38.0, 44, 50]) * look.uniform(0.8, 1.3)
    braking = look.random() < 0.25
    shine = 255 if canvas.lit > 0 else 0
    tail = (236, 40, 34, max(shine, 90 if braking else 0)) if braking or shine else (150, 26, 26)
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
        "head": (255, 250, 232, shine) if shine else (206, 210, 212),
        "tail": tail,
        "sign": (250, 170, 50, 200) if shine else (60, 48, 30),
    }


def draw_vehicle(canvas: Canvas, vehicle: Vehicle):
    """A dark patch beneath, the mesh, and a breath of grain so that paint is not flat."""
    contact(canvas, vehicle.footprint(vehicle.base + 0.01), 0.75)
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
        canvas.grain(drawn[0], drawn[1], textures.fractal(1.5, 61), 0.06)
