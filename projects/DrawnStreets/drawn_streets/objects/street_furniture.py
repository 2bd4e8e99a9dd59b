"""Street lamps, traffic lights, signs, bollards, bins, benches and wires."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..classes import IGNORE_LABEL, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN
from ..render.camera import NEAR
from ..render.canvas import Canvas
from ..render.mesh import Mesh, MeshBuilder, draw_mesh, draw_rods, to_world
from ..types import Vector
from .ground import KERB

SHAPES = ("disc", "triangle", "square", "octagon", "board", "arrow")


@dataclass(frozen=True)
class Post:
    """A pole at (x, z) with a lamp, lights or a sign.

    ``kind`` is "lamp", "lights", "sign", "bollard", "mast" or "gantry" (lights above the road).
    ``side`` (+1 or -1) is the direction to the road along x, ``heading`` that of the front.
    """

    kind: str
    x: float
    z: float
    side: int
    height: float
    heading: float = np.pi
    shape: str = "disc"
    state: int = 0
    base: float = KERB

    def corners(self) -> np.ndarray:
        top = self.base + self.height
        return np.array([[self.x + d, y, self.z] for d in (-0.07, 0.07) for y in (0.0, top)])


def draw_post(canvas: Canvas, post: Post) -> None:
    """Paint the pole and the parts that are mounted on it."""
    foot = np.array([post.x, post.base, post.z])
    depth = float(canvas.camera.to_camera(foot)[2])
    tone = canvas.colour_rng.uniform(0.7, 1.15)
    if depth < 2 * NEAR:
        return
    surface = canvas.add_surface(POLE, depth)
    greys = {
        "bollard": (52, 52, 54),
        "sign": (150, 152, 152),
        "lights": (92, 94, 94),
        "gantry": (120, 122, 122),
    }
    grey = np.array(greys.get(post.kind, (112, 116, 116)), float) * tone
    top = foot + np.array([0, post.height, 0])
    thick = {"bollard": 0.07, "sign": 0.035, "lights": 0.06, "gantry": 0.10, "mast": 0.12}.get(
        post.kind, 0.075
    )
    draw_rods(canvas, [foot], [top], [(thick, thick * 0.7)], grey[None], surface)
    if post.kind == "bollard":
        band = [top - (0, 0.25, 0)], [top - (0, 0.15, 0)]
        draw_rods(canvas, *band, [(thick, thick)], np.array([[226.0, 226, 220]]), surface)
    elif post.kind == "lamp":
        _lamp(canvas, post, top, grey, surface)
    elif post.kind == "lights":
        _signal(canvas, post, top - (0, 0.35, 0))
    elif post.kind == "gantry":
        end = top + np.array([post.side * 5.0, 0.2, 0])
        draw_rods(canvas, [top], [end], [(0.07, 0.05)], grey[None], surface)
        _signal(canvas, post, end - (0, 0.35, 0))
        _signal(canvas, post, foot + np.array([post.side * 0.2, 2.7, 0]))
    elif post.kind == "sign":
        _sign(canvas, post, top - (0, 0.36, 0))


def lamp_head(post: Post) -> np.ndarray:
    """Return the world position of a street lamp's light."""
    return np.array([post.x + post.side * 1.4, post.base + post.height + 0.1, post.z])


def _lamp(canvas: Canvas, post: Post, top: np.ndarray, grey: np.ndarray, surface: int) -> None:
    head = lamp_head(post)
    draw_rods(canvas, [top], [head], [(0.05, 0.04)], grey[None], surface)
    emission = 255 if canvas.lit else 0
    bulb = np.array([[255, 226, 170, emission]] if emission else [[188, 190, 188, 0]], float)
    reach = np.array([post.side * 0.55, 0.04, 0])
    draw_rods(canvas, [head], [head + reach], [(0.11, 0.08)], grey[None] * 0.9, surface)
    drop = np.array([0, -0.06, 0])
    draw_rods(
        canvas,
        [head + drop],
        [head + reach + drop],
        [(0.07, 0.05)],
        bulb,
        surface,
        round_light=False,
    )


@lru_cache(maxsize=1)
def _signal_box() -> Mesh:
    builder = MeshBuilder()
    builder.box((-0.19, -0.5, 0.0), (0.19, 0.5, 0.22), "box")
    return builder.mesh()


def _signal(canvas: Canvas, post: Post, centre: np.ndarray) -> None:
    """Paint a traffic light; its lamps are visible from the front only."""
    seen = draw_mesh(
        canvas,
        _signal_box(),
        {"box": (34, 36, 36)},
        TRAFFIC_LIGHT,
        centre - (0, 0, 0.1),
        post.heading,
    )
    if seen is None:
        return
    surface = seen[0]
    colours = ((255, 46, 36), (255, 186, 40), (52, 240, 150))
    on = {0: (0,), 1: (2,), 2: (1,), 3: (0, 1)}[post.state]
    view = canvas.camera.position - canvas.camera.apply_curvature(centre)
    front = to_world(np.array([0, 0, 1.0]), (0, 0, 0), post.heading)
    if view @ front <= 0:
        return
    for i, colour in enumerate(colours):
        place = to_world(np.array([[0, 0.31 - 0.31 * i, 0.23]]), centre - (0, 0, 0.1), post.heading)
        bright = np.array(
            [[*colour, 255]] if i in on else [[*(0.16 * np.array(colour) + 12), 0]], float
        )
        draw_rods(canvas, place, place, [(0.115, 0.115)], bright, surface, round_light=False)


@dataclass(frozen=True)
class Box:
    """A bin, cabinet or bench at (x, z); its label is ignore, because no class includes it."""

    x: float
    z: float
    width: float
    height: float
    heading: float

    def corners(self) -> np.ndarray:
        half = 0.5 * self.width
        spread = np.array([(a, y, b) for a in (-half, half) for b in (-half, half) for y in (0, 1)])
        return to_world(spread * (1, self.height, 1), (self.x, KERB, self.z), self.heading)


@lru_cache(maxsize=1)
def _box_mesh() -> Mesh:
    builder = MeshBuilder()
    builder.box((-0.5, 0.0, -0.5), (0.5, 0.86, 0.5), "body")
    builder.box((-0.54, 0.86, -0.54), (0.54, 1.0, 0.54), "lid")
    builder.end_panel(-0.51, -0.3, 0.3, 0.25, 0.7, "label")
    builder.end_panel(0.51, -0.3, 0.3, 0.25, 0.7, "label")
    return builder.mesh()


def draw_box(canvas: Canvas, box: Box) -> None:
    """Paint a box."""
    body = canvas.colour_rng.uniform(20, 170) + canvas.colour_rng.uniform(-30, 30, 3)
    paints = {"body": body, "lid": body * 0.7, "label": canvas.colour_rng.uniform(20, 230, 3)}
    size = np.array([box.width, box.height, box.width])
    place = (box.x, KERB, box.z)
    draw_mesh(canvas, _box_mesh(), paints, IGNORE_LABEL, place, box.heading, size)


@dataclass(frozen=True)
class Wire:
    """A sagging wire between two world points; it has no label, because it is too thin."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    sag: float

    @property
    def x(self) -> float:
        return 0.5 * (self.start[0] + self.end[0])

    @property
    def z(self) -> float:
        return 0.5 * (self.start[2] + self.end[2])

    def corners(self) -> np.ndarray:
        return np.array([self.start, self.end])


def draw_wire(canvas: Canvas, wire: Wire) -> None:
    """Paint a wire, in colour only."""
    along = np.linspace(0, 1, 13)[:, None]
    points = np.array(wire.start) * (1 - along) + np.array(wire.end) * along
    points[:, 1:2] -= 4 * wire.sag * along * (1 - along)
    seen = canvas.camera.to_camera(points)
    seen = seen[seen[:, 2] > 2 * NEAR]
    if len(seen) > 1:
        dark = canvas.shade([[30, 30, 32]], np.array([[0.0, 0.3, 0.0]]))[0]
        canvas.draw_line(canvas.camera.project(seen), dark, 1, closed=False)


def _outline(shape: str) -> np.ndarray:
    """Return the corners of a sign in metres, y up."""
    if shape == "triangle":
        return np.array([(-0.45, -0.3), (0.45, -0.3), (0.0, 0.48)])
    if shape in ("square", "board", "arrow"):
        wide, tall = {"square": (0.35, 0.35), "board": (0.9, 0.45), "arrow": (0.55, 0.2)}[shape]
        return np.array([(-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall)])
    count, start = (8, np.pi / 8) if shape == "octagon" else (20, 0.0)
    turn = start + np.linspace(0, 2 * np.pi, count, endpoint=False)
    return 0.38 * np.stack([np.cos(turn), np.sin(turn)], 1)


def _sign(canvas: Canvas, post: Post, centre: np.ndarray) -> None:
    """Paint a plate with a border and a few strokes; it is grey from behind."""
    outline = _outline(post.shape)
    schemes = {
        "disc": (((200, 30, 36), 1.0), ((236, 236, 232), 0.76)),
        "triangle": (((200, 30, 36), 1.0), ((240, 238, 232), 0.66)),
        "octagon": (((240, 240, 236), 1.0), ((190, 26, 32), 0.9)),
        "square": (((240, 240, 236), 1.0), ((30, 84, 170), 0.92)),
        "board": (
            ((240, 240, 236), 1.0),
            ((32, 96, 66) if post.state % 2 else (28, 70, 150), 0.95),
        ),
        "arrow": (((240, 240, 236), 1.0), ((28, 80, 160), 0.94)),
    }
    corners = np.stack([outline[:, 0], outline[:, 1], np.zeros(len(outline))], 1)
    front = to_world(np.array([0, 0, 1.0]), (0, 0, 0), post.heading)
    facing = (canvas.camera.position - canvas.camera.apply_curvature(centre)) @ front > 0
    plates = schemes[post.shape] if facing else (((128, 130, 130), 1.0),)
    middle = corners.mean(0)
    surface = canvas.add_surface(TRAFFIC_SIGN, float(max(canvas.camera.to_camera(centre)[2], NEAR)))

    def plate(points: np.ndarray, colour: Vector, number: int | None) -> None:
        points = to_world(points + np.array([0, 0, 0.05]), centre, post.heading)
        shade = canvas.shade(colour, front[None] + np.array([0, 0.3, 0]))[0]
        canvas.draw_polygon(canvas.camera.to_camera(points), shade, number)

    for colour, share in plates:
        plate(middle + (corners - middle) * share, colour, surface if share == 1.0 else None)
    if not facing:
        return
    ink = (30, 30, 32) if post.shape in ("disc", "triangle") else (238, 238, 234)
    wide = np.ptp(outline[:, 0]) * 0.22
    for i in range(2 if post.shape != "board" else 3):
        y = middle[1] + (0.12 - 0.2 * i) * (1.0 if post.shape == "board" else 0.7)
        stroke = np.array(
            [
                (-wide, y, 0),
                (wide * (0.4 + 0.5 * ((post.state + i) % 2)), y, 0),
                (wide * (0.4 + 0.5 * ((post.state + i) % 2)), y + 0.08, 0),
                (-wide, y + 0.08, 0),
            ]
        )
        plate(stroke, ink, None)
