"""Buildings: boxes with facades, roofs and chimneys."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..classes import BUILDING
from ..render import textures
from ..render.canvas import Canvas
from ..render.mesh import Mesh, MeshBuilder, draw_mesh
from ..types import Point
from .facade import FacadePaint, FacadeStyle, paint_facade
from .ground import KERB


@dataclass(frozen=True)
class Building:
    """A box with footprint x0..x1, z0..z1 in metres; ``fronts`` are the faces with windows."""

    x0: float
    x1: float
    z0: float
    z1: float
    style: FacadeStyle
    fronts: tuple[str, ...]  # of "left", "right", "near"
    roof: float = 0.0  # height of a gable above the eaves, 0 = flat
    chimneys: int = 0
    awning: bool = False

    @property
    def x(self) -> float:
        return 0.5 * (self.x0 + self.x1)

    @property
    def z(self) -> float:
        return 0.5 * (self.z0 + self.z1)

    def corners(self) -> np.ndarray:
        """Return the eight corners of the box that casts the building's shadow."""
        top = KERB + self.style.height + 0.5 * self.roof
        return np.array(
            [[x, y, z] for x in (self.x0, self.x1) for y in (0.0, top) for z in (self.z0, self.z1)]
        )

    def faces(self) -> Iterator[tuple[str, Point, Point, Point, Point]]:
        """Yield the faces that can be visible.

        Each is (name, top left corner, top right corner, bottom left corner, outward normal).
        """
        x0, x1, z0, z1 = self.x0, self.x1, self.z0, self.z1
        top = KERB + self.style.height
        yield "near", (x0, top, z0), (x1, top, z0), (x0, KERB, z0), (0, 0, -1)
        yield "right", (x1, top, z0), (x1, top, z1), (x1, KERB, z0), (1, 0, 0)
        yield "left", (x0, top, z1), (x0, top, z0), (x0, KERB, z1), (-1, 0, 0)


def draw_building(canvas: Canvas, building: Building) -> None:
    """Paint the faces that point to the camera, then the roof and the chimneys."""
    camera, rng = canvas.camera, canvas.colour_rng
    paint = FacadePaint.sample(rng, canvas.palette)
    roof_colour = np.array(canvas.palette.roofs[rng.integers(len(canvas.palette.roofs))], float)
    seed = int(rng.integers(1 << 31))
    for name, corner, right, down, normal in building.faces():
        points = camera.to_camera(np.array([corner, right, down], float))
        outward = camera.rotation @ np.asarray(normal, float)
        if points[0] @ outward >= 0 or points[:, 2].max() < 0.5:
            continue
        width = float(np.linalg.norm(np.subtract(right, corner)))
        density = canvas.density(corner, right, down)
        if density is None:
            continue
        density = textures.texture_density(1.05 * density)
        style = building.style
        face_rng = np.random.default_rng((seed, ord(name[0])))
        if name not in building.fronts:
            style = FacadeStyle(style.storeys, style.storey, ground="blank", cornice=style.cornice)
        picture = paint_facade(style, paint, width, density, rng=face_rng, lit=canvas.lit)
        plane = camera.plane(points[0], outward)
        surface = canvas.add_surface(BUILDING, plane)
        canvas.draw_texture(corner, right, down, picture, surface, normal=normal)
        if (
            building.awning
            and building.z0 < 50
            and name in building.fronts
            and style.ground == "shop"
        ):
            _awning(canvas, building, name, paint, face_rng)
    if building.roof:
        _roof(canvas, building, paint, roof_colour)
    if building.chimneys and building.z0 < 70:
        _chimneys(canvas, building, paint, seed)


def _roof(canvas: Canvas, b: Building, paint: FacadePaint, colour: np.ndarray) -> None:
    """Paint a gable roof whose ridge is parallel to the main front."""
    camera = canvas.camera
    low, high = KERB + b.style.height, KERB + b.style.height + b.roof
    over = 0.3
    if "near" in b.fronts and len(b.fronts) == 1:
        ridge = 0.5 * (b.z0 + b.z1)
        slopes: list[tuple[Point, Point, Point, Point]] = [
            (
                (b.x0, high, ridge),
                (b.x1, high, ridge),
                (b.x0, low, b.z0 - over),
                (0, ridge - b.z0, -b.roof),
            )
        ]
        gable: list[Point] = [(b.x1, low, b.z0), (b.x1, low, b.z1), (b.x1, high, ridge)]
        gables: list[tuple[list[Point], Point]] = [
            (gable, (1, 0, 0)),
            ([(b.x0, y, z) for _, y, z in gable], (-1, 0, 0)),
        ]
    else:
        ridge = 0.5 * (b.x0 + b.x1)
        run = ridge - b.x0
        slopes = [
            ((ridge, high, b.z0), (ridge, high, b.z1), (b.x1 + over, low, b.z0), (b.roof, run, 0)),
            ((ridge, high, b.z1), (ridge, high, b.z0), (b.x0 - over, low, b.z1), (-b.roof, run, 0)),
        ]
        gables = [([(b.x0, low, b.z0), (b.x1, low, b.z0), (ridge, high, b.z0)], (0, 0, -1))]
    for corners, normal in gables:
        seen = camera.to_camera(np.array(corners, float))
        outward = camera.rotation @ np.array(normal, float)
        if seen[0] @ outward < 0:
            shade = canvas.shade([paint.wall], np.array([normal], float))[0]
            canvas.draw_polygon(
                seen, shade, canvas.add_surface(BUILDING, camera.plane(seen[0], outward))
            )
    for corner, right, down, upward in slopes:
        unit = np.array(upward, float) / np.linalg.norm(upward)
        points = camera.to_camera(np.array([corner, right, down], float))
        outward = camera.rotation @ unit
        if points[0] @ outward >= 0 or points[:, 2].max() < 1:
            continue
        metres = (
            float(np.linalg.norm(np.subtract(right, corner))),
            float(np.linalg.norm(np.subtract(down, corner))),
        )
        density = canvas.density(corner, right, down)
        if density is None:
            continue
        picture = textures.coloured_material(
            colour, "tiles", metres, textures.texture_density(density, 27)
        )
        canvas.draw_texture(
            corner,
            right,
            down,
            picture,
            canvas.add_surface(BUILDING, camera.plane(points[0], outward)),
            normal=unit,
        )


@lru_cache(maxsize=1)
def _chimney() -> Mesh:
    builder = MeshBuilder()
    builder.box((-0.4, -1.2, -0.3), (0.4, 0.9, 0.3), "wall")
    builder.box((-0.25, 0.9, -0.12), (0.25, 1.25, 0.12), "pot")
    return builder.mesh()


def _chimneys(canvas: Canvas, b: Building, paint: FacadePaint, seed: int) -> None:
    top = KERB + b.style.height + b.roof
    rng = np.random.default_rng(seed)
    for i in range(b.chimneys):
        z = b.z0 + (i + 0.5) / b.chimneys * (b.z1 - b.z0)
        x = 0.5 * (b.x0 + b.x1) + rng.uniform(-0.5, 0.5)
        draw_mesh(
            canvas,
            _chimney(),
            {"wall": paint.wall * 0.8, "pot": (150, 90, 66)},
            BUILDING,
            (x, top, z),
            0.0,
        )


def _awning(
    canvas: Canvas, b: Building, name: str, paint: FacadePaint, rng: np.random.Generator
) -> None:
    """Paint a sloping awning over the shop window."""
    y = KERB + b.style.storey - 0.35
    stripe = (230, 226, 214) if rng.random() < 0.5 else paint.shop * 0.7
    reach, drop = 1.3, 0.6
    sign = 1 if name == "right" else -1
    for i, z in enumerate(np.arange(b.z0 + 0.3, b.z1 - 0.8, 0.5)):
        colour = paint.shop if i % 2 else stripe
        if name == "near":
            return
        x = b.x1 if name == "right" else b.x0
        cloth = np.array(
            [
                [x, y, z],
                [x, y, z + 0.5],
                [x + sign * reach, y - drop, z + 0.5],
                [x + sign * reach, y - drop, z],
            ]
        )
        points = canvas.camera.to_camera(cloth)
        shade = canvas.shade(np.asarray(colour), np.array([[0.4 * sign, 0.9, 0.0]]))[0]
        canvas.draw_polygon(points, shade, canvas.add_surface(BUILDING, float(points[:, 2].mean())))
