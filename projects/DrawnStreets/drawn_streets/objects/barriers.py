"""Walls, fences and hedges along the street."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..classes import FENCE, VEGETATION, WALL
from ..render import textures
from ..render.canvas import Canvas
from ..types import Vector
from .ground import KERB

KINDS = {
    "wall": WALL,
    "bars": FENCE,
    "planks": FENCE,
    "mesh": FENCE,
    "rail": FENCE,
    "hedge": VEGETATION,
}


@dataclass(frozen=True)
class Barrier:
    """A straight section from ``start`` to ``end``, both (x, z), visible from either side."""

    kind: str
    start: tuple[float, float]
    end: tuple[float, float]
    height: float
    base: float = KERB
    tone: int = 0  # seed of the colour; all sections of a row share it

    @property
    def x(self) -> float:
        return 0.5 * (self.start[0] + self.end[0])

    @property
    def z(self) -> float:
        return 0.5 * (self.start[1] + self.end[1])

    def corners(self) -> np.ndarray:
        return np.array([[x, y, z] for x, z in (self.start, self.end) for y in (0.0, self.height)])


@lru_cache(maxsize=64)
def _grid(kind: str, length_pixels: int, height_pixels: int, density: int) -> np.ndarray:
    """Return the alpha (h, w) uint8 of a see-through fence."""
    alpha = np.zeros((height_pixels, length_pixels), np.uint8)
    line = max(int(0.035 * density), 1)
    if kind == "bars":
        for x in range(0, length_pixels, max(int(0.13 * density), 2 * line)):
            alpha[:, x : x + line] = 255
        for y in (0.06, 0.9):
            row = int(y * height_pixels)
            alpha[row : row + 2 * line] = 255
    elif kind == "rail":
        for y in (0.12, 0.5, 0.82):
            row = int(y * height_pixels)
            alpha[row : row + max(int(0.09 * density), 1)] = 255
    else:
        step = max(int(0.1 * density), 2)
        y, x = np.mgrid[0:height_pixels, 0:length_pixels]
        alpha[((x + y) % step < max(step // 5, 1)) | ((x - y) % step < max(step // 5, 1))] = 120
        alpha[: 2 * line] = 255
    post = max(int(0.08 * density), 1)
    for x in range(0, length_pixels, max(int(2.5 * density), 1)):
        alpha[:, x : x + post] = 255
    return alpha


def _paint_of(canvas: Canvas, barrier: Barrier) -> tuple[np.ndarray, str]:
    choice = np.random.default_rng(barrier.tone)
    if barrier.kind == "wall":
        walls = canvas.palette.facades
        colour = np.array(walls[choice.integers(len(walls))], float) * choice.uniform(0.6, 0.95)
        return colour, ("brick", "stone", "panel", "plaster", "brick")[choice.integers(5)]
    if barrier.kind == "hedge":
        leaves = canvas.palette.leaves
        return np.array(leaves[choice.integers(len(leaves))], float) * 0.75, "leaves"
    if barrier.kind == "planks":
        return np.array([132.0, 104, 78]) * choice.uniform(0.6, 1.2), "planks"
    metals = ((44, 46, 48), (150, 154, 156), (60, 84, 66), (206, 206, 200), (96, 84, 76))
    return np.array(metals[choice.integers(len(metals))], float), "plaster"


def _shade(height: int, width: int) -> np.ndarray:
    """Return factors (128 = 1) that darken a wall towards the ground."""
    return np.repeat(np.linspace(134, 92, height).astype(np.uint8)[:, None], width, 1)


def draw_barrier(canvas: Canvas, barrier: Barrier) -> None:
    """Paint the side that faces the camera, and the top of a wall or hedge."""
    camera = canvas.camera
    colour, material = _paint_of(canvas, barrier)
    (xa, za), (xb, zb) = barrier.start, barrier.end
    low, high = barrier.base, barrier.base + barrier.height
    ends = np.array([[xa, high, za], [xb, high, zb]])
    seen = camera.to_camera(ends)
    density = canvas.density(ends[0], ends[1], ends[0] - (0, high - low, 0))
    if density is None:
        return
    if seen[0, 0] * seen[1, 2] > seen[1, 0] * seen[0, 2]:
        ends = ends[::-1]
    along = ends[1] - ends[0]
    length = float(np.linalg.norm(along))
    normal = np.array([along[2], 0, -along[0]]) / length
    density = textures.texture_density(1.3 * density, 64)
    shift = np.random.default_rng(abs(int(za * 10))).integers(0, 256, 2)
    solid = barrier.kind in ("wall", "hedge")
    picture = textures.coloured_material(
        colour, material, (length, barrier.height), density, shift, _shade if solid else None
    )
    cover = None
    if barrier.kind in ("bars", "mesh", "rail"):
        cover = _grid(barrier.kind, picture.shape[1], picture.shape[0], density)
    outward = camera.rotation @ normal
    surface = canvas.add_surface(
        KINDS[barrier.kind], camera.plane(camera.to_camera(ends[0]), outward)
    )
    down = ends[0] - (0, high - low, 0)
    if solid:
        _top(canvas, ends, normal, colour, surface, 0.3 if barrier.kind == "wall" else 0.9)
    if barrier.kind == "wall":
        cap = max(int(0.08 * density), 1)
        picture[:cap] = (*np.clip(colour * 1.25, 0, 255), 0)
        picture[cap : cap + max(cap // 2, 1)] = (*(colour * 0.5), 0)
    canvas.draw_texture(ends[0], ends[1], down, picture, surface, normal=normal, cover=cover)


def _top(
    canvas: Canvas, ends: np.ndarray, normal: np.ndarray, colour: Vector, surface: int, depth: float
) -> None:
    back = ends - normal * depth
    points = canvas.camera.to_camera(np.array([ends[0], ends[1], back[1], back[0]]))
    canvas.draw_polygon(
        points, canvas.shade(np.multiply(colour, 1.15), np.array([[0.0, 1.0, 0.0]]))[0], surface
    )
