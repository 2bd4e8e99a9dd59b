"""The shapes of trucks, buses and trams, in metres, front towards +z."""

from collections.abc import Callable

import numpy as np

from ..render.mesh import Mesh, MeshBuilder
from .cars import flank_wheels


def _truck_cab(b: MeshBuilder, half: float, height: float, z0: float, z1: float) -> None:
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


def _cargo(b: MeshBuilder, half: float, low: float, height: float, z0: float, z1: float) -> None:
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


def box_truck() -> Mesh:
    """Build a truck with a closed box body."""
    b = MeshBuilder()
    b.wheels(1.12, (-2.2, 2.4), 0.45, 0.3)
    b.box((-1.0, 0.5, -3.6), (1.0, 0.95, 3.4), "dark")
    _truck_cab(b, 1.1, 2.5, 1.9, 3.6)
    _cargo(b, 1.2, 0.95, 3.4, -3.6, 1.8)
    return b.mesh()


def lorry() -> Mesh:
    """Build a truck with a long trailer."""
    b = MeshBuilder()
    b.wheels(1.22, (-4.9, -3.7, 2.6, 5.4), 0.5, 0.35)
    b.box((-1.0, 0.5, -6.4), (1.0, 1.1, 6.0), "dark")
    _truck_cab(b, 1.22, 3.2, 4.4, 6.5)
    _cargo(b, 1.26, 1.1, 3.9, -6.5, 4.1)
    return b.mesh()


def pickup() -> Mesh:
    """Build a small truck with an open bed."""
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


def _window_row(
    b: MeshBuilder,
    half: float,
    low: float,
    high: float,
    z0: float,
    z1: float,
    count: int,
    gap: float = 0.12,
) -> None:
    pitch = (z1 - z0) / count
    for i in range(count):
        start, end = z0 + i * pitch + gap / 2, z0 + (i + 1) * pitch - gap / 2
        b.side_panel(half + 0.012, low, high, start, end, "glass")
        b.side_panel(half + 0.014, low + 0.55 * (high - low), high, start, end, "sheen")


def bus() -> Mesh:
    """Build a city bus with two doors on its right."""
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
    flank_wheels(b, half, (z0 + 2.7, z1 - 2.6), 0.48)
    return b.mesh()


def tram() -> Mesh:
    """Build a tram of three cars with a rounded cab at each end."""
    b = MeshBuilder()
    half, height = 1.25, 3.4
    inside = np.array([0.0, 1.5, 0.0])
    b.box((-half + 0.15, 0.4, -5.0), (half - 0.15, height - 0.2, 5.0), "dark")
    # The cars have no end faces, which would be painted over the neighbouring cars.
    for z0, z1 in ((-14.0, -4.9), (-4.5, 4.5), (4.9, 14.0)):
        roof = [(-half, height, z0), (half, height, z0), (half, height, z1), (-half, height, z1)]
        b.face(roof, "body", inside=inside)
        b.side_panel(half, 0.25, height, z0, z1, "body", detail=False)
        b.side_panel(half + 0.006, 1.15, 2.75, z0, z1, "dark", detail=False)
        b.side_panel(half + 0.006, 0.25, 0.55, z0, z1, "trim")
        b.side_panel(half + 0.007, 0.7, 0.95, z0, z1, "logo")
        _window_row(b, half, 1.25, 2.6, z0 + 0.2, z1 - 0.2, 5)
        b.side_panel(
            half + 0.016, 0.4, 2.7, (z0 + z1) / 2 - 0.7, (z0 + z1) / 2 + 0.7, "sheen", tone=0.7
        )
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
        b.mirrored_faces(cheek, "body", inside=inside, tone=0.9)
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


HEAVY_VEHICLES: dict[str, Callable[[], Mesh]] = {
    "box": box_truck,
    "lorry": lorry,
    "pickup": pickup,
    "bus": bus,
    "tram": tram,
}
