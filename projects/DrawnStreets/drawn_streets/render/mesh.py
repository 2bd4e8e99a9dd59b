"""Meshes of flat faces, capsules (round rods) and convex hulls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ..types import Point, Vector
from .camera import NEAR
from .canvas import Canvas

HALF_TURN = np.linspace(0.5 * np.pi, 1.5 * np.pi, 6)
ARCS = np.stack([HALF_TURN, HALF_TURN + np.pi])  # of a capsule's outline, around its start and end
ROUND = np.array([[0.0, 0.25, -0.2]])  # shorter than 1: the mean shading of a round surface


@dataclass(frozen=True)
class Mesh:
    """Faces in painting order; faces that point away from the camera are culled.

    ``vertices`` (N, 3) are in metres: x to the object's right, y up, z forward. ``slots`` are the
    names of the faces' colours, ``tones`` their brightness. ``details`` marks small faces that lie
    on other faces: they have no surface of their own and are skipped when the object is small.
    """

    vertices: np.ndarray
    faces: tuple[np.ndarray, ...]
    normals: np.ndarray
    slots: tuple[str, ...]
    tones: np.ndarray
    details: np.ndarray


class MeshBuilder:
    """Collects faces and orients their normals away from the point ``inside``."""

    def __init__(self) -> None:
        self._vertices: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._normals: list[np.ndarray] = []
        self._slots: list[str] = []
        self._tones: list[float] = []
        self._details: list[bool] = []

    def face(
        self,
        points: ArrayLike,
        slot: str,
        *,
        inside: Vector,
        tone: float = 1.0,
        detail: bool = False,
    ) -> None:
        points = np.asarray(points, float)
        normal = np.cross(points[1] - points[0], points[2] - points[0])
        normal /= max(np.linalg.norm(normal), 1e-9)
        if normal @ (points.mean(0) - inside) < 0:
            normal = -normal
        start = sum(map(len, self._vertices))
        self._vertices.append(points)
        self._faces.append(np.arange(start, start + len(points)))
        self._normals.append(normal)
        self._slots.append(slot)
        self._tones.append(tone)
        self._details.append(detail)

    def mirrored_faces(
        self,
        points: ArrayLike,
        slot: str,
        *,
        inside: Vector,
        tone: float = 1.0,
        detail: bool = False,
    ) -> None:
        """Add a face and its mirror image at -x."""
        for sign in (1, -1):
            mirrored = np.asarray(points, float) * (sign, 1, 1)
            self.face(mirrored, slot, inside=inside, tone=tone, detail=detail)

    def box(
        self, low: Point, high: Point, slot: str, *, tone: float = 1.0, detail: bool = False
    ) -> None:
        """Add an upright box without a floor."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        inside = (np.asarray(low, float) + high) / 2
        for corners in (
            [(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)],
            [(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)],
            [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)],
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
            [(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)],
        ):
            self.face(corners, slot, inside=inside, tone=tone, detail=detail)

    def side_panel(
        self,
        x: float,
        y0: float,
        y1: float,
        z0: float,
        z1: float,
        slot: str,
        *,
        tone: float = 1.0,
        lean: float = 0.0,
        detail: bool = True,
    ) -> None:
        """Add a rectangle on both sides, at x and -x; its top leans inwards by ``lean``."""
        corners = [(x, y0, z0), (x, y0, z1), (x - lean, y1, z1), (x - lean, y1, z0)]
        self.mirrored_faces(corners, slot, inside=np.zeros(3), tone=tone, detail=detail)

    def end_panel(
        self,
        z: float,
        x0: float,
        x1: float,
        y0: float,
        y1: float,
        slot: str,
        *,
        tone: float = 1.0,
        detail: bool = True,
    ) -> None:
        """Add a rectangle that faces forward (z > 0) or backward (z < 0)."""
        corners = [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]
        self.face(corners, slot, inside=np.zeros(3), tone=tone, detail=detail)

    def wheels(
        self, x: float, positions: Sequence[float], radius: float, width: float = 0.22
    ) -> None:
        """Add a wheel on both sides at each z of ``positions``, with treads at front and rear."""
        turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        circle = np.stack([np.zeros(14), np.sin(turn), np.cos(turn)], 1)
        for z in positions:
            for sign in (1, -1):
                inner, outer = sign * (x - width), sign * x
                for end in (0.8, -0.8):
                    tread = [
                        (inner, 0, z + end * radius),
                        (outer, 0, z + end * radius),
                        (outer, radius, z + end * radius),
                        (inner, radius, z + end * radius),
                    ]
                    self.face(tread, "tyre", inside=np.array([outer, 0.5 * radius, z]))
                centre = np.array([outer, radius, z])
                inside = np.array([0, radius, z])
                for size, slot in ((1.0, "tyre"), (0.64, "rim"), (0.25, "tyre")):
                    self.face(
                        centre + circle * radius * size, slot, inside=inside, detail=size < 0.3
                    )

    def mesh(self) -> Mesh:
        return Mesh(
            np.concatenate(self._vertices),
            tuple(self._faces),
            np.array(self._normals),
            tuple(self._slots),
            np.array(self._tones),
            np.array(self._details),
        )


def to_world(
    points: np.ndarray, position: Vector, heading: float, scale: float | np.ndarray = 1.0
) -> np.ndarray:
    """Map object points (..., 3) to the world; heading 0 is along the street, pi towards us."""
    cos, sin = np.cos(heading), np.sin(heading)
    turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    return (np.asarray(points) * scale) @ turn + np.asarray(position, float)


def draw_mesh(
    canvas: Canvas,
    mesh: Mesh,
    paints: Mapping[str, Vector],
    label: int,
    position: Vector,
    heading: float,
    scale: float | np.ndarray = 1.0,
) -> tuple[int, np.ndarray] | None:
    """Paint a mesh; return its surface and pixel box (2, 2), or None if it is not visible."""
    camera = canvas.camera
    world = to_world(mesh.vertices, position, heading, scale)
    points = camera.to_camera(world)
    if points[:, 2].max() < NEAR:
        return None
    normals = to_world(mesh.normals, (0, 0, 0), heading)
    bent = camera.apply_curvature(world)
    firsts = bent[[face[0] for face in mesh.faces]]
    facing = np.einsum("ij,ij->i", normals, camera.position - firsts) > 0
    whole = points[:, 2].min() >= NEAR
    pixels = camera.project(points if whole else points[points[:, 2] >= NEAR])
    corners = np.stack([pixels.min(0), pixels.max(0)])
    if whole and canvas.clipped_box(corners) is None:
        return None
    if np.ptp(pixels[:, 1]) < 36:
        facing &= ~mesh.details
    colours = np.array([(*paints[slot], 0)[:4] for slot in mesh.slots], float)
    colours[:, :3] *= mesh.tones[:, None]
    colours = canvas.shade(colours, normals)
    surface = canvas.add_surface(label, float(max(np.median(points[:, 2]), NEAR)))
    for i in np.flatnonzero(facing):
        number = None if mesh.details[i] else surface
        if whole:
            canvas.fill_polygon(pixels[mesh.faces[i]], colours[i], number)
        else:
            canvas.draw_polygon(points[mesh.faces[i]], colours[i], number)
    return surface, corners


def draw_rods(
    canvas: Canvas,
    starts: ArrayLike,
    ends: ArrayLike,
    radii: ArrayLike,
    colours: ArrayLike,
    surface: int | None,
    *,
    round_light: bool = True,
) -> None:
    """Paint N round rods, back to front, as capsules; paint none if one is too near.

    Parameters
    ----------
    canvas : Canvas
        The canvas to draw on.
    starts, ends : array_like
        World points (N, 3).
    radii : array_like
        (N, 2) in metres, at start and end.
    colours : array_like
        (N, 3) or (N, 4) with emission.
    surface : int or None
        Surface of all rods; None paints colours only.
    round_light : bool
        Whether to add a narrower, brighter stroke on the sunlit side.
    """
    camera = canvas.camera
    starts, ends = np.asarray(starts, float), np.asarray(ends, float)
    points = camera.to_camera(np.concatenate([starts, ends])).reshape(2, -1, 3).swapaxes(0, 1)
    if points[..., 2].min() <= NEAR:
        return
    pixels = camera.project(points)
    if canvas.clipped_box(pixels.reshape(-1, 2)) is None:
        return
    sizes = np.maximum(np.asarray(radii) * camera.focal / points[..., 2], 0.45)
    shown = canvas.shade(colours, ROUND)
    outlines = _capsules(pixels, sizes)
    thick = sizes.max(1) > (1.6 if round_light else np.inf)
    if thick.any():
        side = np.sign((camera.rotation @ canvas.light.sun)[0]) or 1.0
        inner = _capsules(pixels + np.array([side * 0.35, -0.1]) * sizes[..., None], sizes * 0.5)
        bright = np.minimum(shown * (1.22, 1.22, 1.2, 1), 255)
    for i in range(len(outlines)):
        canvas.fill_polygon(outlines[i], shown[i], surface)
        if thick[i]:
            canvas.fill_polygon(inner[i], bright[i])


def _capsules(pixels: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the outlines (N, 12, 2) of capsules with ends (N, 2, 2) and radii (N, 2)."""
    along = pixels[:, 1] - pixels[:, 0]
    angle = np.arctan2(along[:, 1], along[:, 0])[:, None, None] + ARCS
    arcs = np.stack([np.cos(angle), np.sin(angle)], -1) * radii[..., None, None]
    return (arcs + pixels[:, :, None]).reshape(len(pixels), -1, 2)


def draw_hull(
    canvas: Canvas, points: np.ndarray, radius: float, colour: Vector, surface: int | None
) -> None:
    """Fill the convex hull of spheres of ``radius`` metres around world points (N, 3)."""
    seen = canvas.camera.to_camera(points)
    if seen[:, 2].min() <= NEAR:
        return
    pixels = canvas.camera.project(seen)
    size = radius * canvas.camera.focal / seen[:, 2]
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    balls = pixels[:, None] + np.stack([np.cos(turn), np.sin(turn)], 1) * size[:, None, None]
    shape = cv2.convexHull(balls.reshape(-1, 2).astype(np.float32))[:, 0]
    shade = canvas.shade(colour, ROUND)[0]
    canvas.fill_polygon(shape, shade, surface)
