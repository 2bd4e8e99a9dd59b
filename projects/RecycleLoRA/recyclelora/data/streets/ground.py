"""The ground: carriageway, raised blocks of land with kerbs, lots on them, markings, cast shadows."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from . import textures
from .camera import clip_near
from .canvas import Canvas

KERB = 0.12  # metres by which land stands above the carriageway
ROAD, SIDEWALK, TERRAIN = 0, 1, 9


@dataclass
class Patch:
    """A horizontal polygon (N, 2) of (x, z) in metres, not necessarily convex."""

    outline: np.ndarray
    label: int
    y: float = KERB
    material: str = "paving"
    kerb: bool = False


@dataclass
class Mark:
    """A painted or laid strip on the carriageway: outline (N, 2), colour name, opacity."""

    outline: np.ndarray
    paint: str = "white"
    opacity: float = 0.85


@dataclass
class Ground:
    """Everything flat, in the order in which it is painted."""

    patches: list[Patch] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    paving: int = 0


def rectangle(x0: float, x1: float, z0: float, z1: float, step: float = 5.0) -> np.ndarray:
    """An outline with enough corners along z to follow the street's bend."""
    z = np.linspace(z0, z1, max(int((z1 - z0) / step), 1) + 1)
    left, right = np.stack([np.full_like(z, x0), z], 1), np.stack([np.full_like(z, x1), z], 1)
    return np.concatenate([left, right[::-1]])


def rounded(x0, x1, z0, z1, radius: float, sign: int) -> np.ndarray:
    """A rectangle whose two corners next to the street (x0 for sign > 0, x1 for sign < 0) are round."""
    turn = np.linspace(0, np.pi / 2, 6)
    near = np.stack([radius - radius * np.sin(turn), radius - radius * np.cos(turn)], 1)
    edge = x0 if sign > 0 else x1
    inner = np.linspace(z0 + radius, z1 - radius, max(int((z1 - z0) / 5), 2))[1:-1]
    start = np.stack([edge + sign * near[:, 0], z0 + near[:, 1]], 1)
    end = np.stack([edge + sign * near[::-1, 0], z1 - near[::-1, 1]], 1)
    front = np.concatenate([start, np.stack([np.full_like(inner, edge), inner], 1), end])
    back = rectangle(x1 if sign > 0 else x0, x1 if sign > 0 else x0, z0, z1)
    return np.concatenate([front, back[: len(back) // 2][::-1]])


def _lift(outline: np.ndarray, y: float) -> np.ndarray:
    return np.stack([outline[:, 0], np.full(len(outline), y), outline[:, 1]], 1)


def _fill(canvas: Canvas, world: np.ndarray, colour, surface):
    """Fill a flat polygon that need not be convex."""
    points = clip_near(canvas.camera.to_camera(world))
    if len(points) < 3:
        return
    corners = [np.rint(np.clip(canvas.camera.project(points), -3e4, 3e4) * 16).astype(np.int32)]
    if colour is not None:
        cv2.fillPoly(canvas.paint, corners, tuple(map(float, colour)), cv2.LINE_AA, 4)
    if surface is not None:
        cv2.fillPoly(canvas.ids, corners, surface, cv2.LINE_8, 4)


def _colours(canvas: Canvas) -> dict[str, np.ndarray]:
    """One paint per material for this picture, as lit on level ground."""
    look, palette = canvas.look, canvas.palette
    base = {
        name: np.array(colours[look.integers(len(colours))], float)
        for name, colours in (
            ("asphalt", palette.asphalt),
            ("paving", palette.paving),
            ("grass", palette.grass),
            ("white", palette.markings),
        )
    }
    base["asphalt"] = base["asphalt"] * look.uniform(0.8, 1.2)
    base["soil"] = base["grass"] * 0.35 + np.array([100, 84, 66]) * 0.65
    base["court"] = 0.5 * base["paving"] + 0.5 * base["asphalt"]
    base["kerb"] = base["paving"] * 0.6 + np.array([70.0, 69, 68])
    base["yellow"] = np.array([212.0, 172, 60])
    base["patch"] = base["asphalt"] * look.uniform(0.72, 1.2)
    base["rail"] = np.array([96.0, 94, 92])
    base["dark"] = np.array([52.0, 52, 54])
    base["bay"] = base["asphalt"] * 0.6 + np.array([58.0, 44, 40])
    up = np.array([[0.0, 1.0, 0.0]])
    shown = {}
    for name, colour in base.items():
        shown[name] = canvas.shaded([colour], up)[0]
    if canvas.snow:
        for name in ("asphalt", "white", "yellow", "patch", "bay", "rail", "dark"):
            bare = base[name] * canvas.light.shade(up)[0]
            slush = 0.45 * canvas.snow
            shown[name] = np.append(bare * (1 - slush) + shown[name][:3] * slush, 0)
    return shown


def paint_ground(canvas: Canvas, ground: Ground, shadows: list[np.ndarray]):
    """Paint the flat things; ``shadows`` are hulls of world points (N, 3) that stand in the sun."""
    camera, colours = canvas.camera, _colours(canvas)
    below = (camera.rays() @ np.array([0, 1, 0], np.float32)) < -1e-3
    kinds = {}
    road = canvas.surface(ROAD, camera.level(0.0))
    far = canvas.surface(TERRAIN, camera.level(KERB))
    kinds[road], kinds[far] = "asphalt", "grass"
    canvas.ids[below] = far
    canvas.paint[below] = colours["grass"].astype(np.uint8)
    carriageway = rectangle(-90, 90, -12, 260)
    _fill(canvas, _lift(carriageway, 0.0), colours["asphalt"], road)
    for mark in ground.marks:
        base = colours["asphalt"]
        shade = base + (colours[mark.paint] - base) * mark.opacity
        _fill(canvas, _lift(mark.outline, 0.0), shade, None)
    for patch in ground.patches:
        surface = canvas.surface(patch.label, camera.level(patch.y))
        kinds[surface] = patch.material
        if patch.kerb:
            _kerb(canvas, patch, colours["kerb"], surface)
        _fill(canvas, _lift(patch.outline, patch.y), colours[patch.material], surface)
    _roughen(canvas, below, kinds, ground.paving)
    _cast(canvas, below, shadows)


def _kerb(canvas: Canvas, patch: Patch, colour, surface: int):
    outline = patch.outline
    for here, there in zip(outline, np.roll(outline, -1, 0), strict=True):
        if np.hypot(*(here - canvas.camera.position[[0, 2]])) > 90:
            continue
        face = np.array([[*here, 0.0], [*there, 0.0], [*there, patch.y], [*here, patch.y]])[
            :, [0, 2, 1]
        ]
        canvas.polygon(canvas.camera.to_camera(face), colour * (0.8, 0.8, 0.8, 1), surface)


def _roughen(canvas: Canvas, below: np.ndarray, kinds: dict[int, str], paving: int):
    """Multiply the ground by its materials' textures, fading where a pixel spans many grains."""
    camera = canvas.camera
    top = int(np.argmax(below.any(1)))
    rays = camera.rays()[top:]
    depth = np.minimum(camera.position[1] / np.maximum(-rays[..., 1], 1e-3), 400).astype(np.float32)
    z = camera.position[2] + depth * rays[..., 2]
    x = camera.position[0] + depth * rays[..., 0] - (0.5 * camera.bend) * z * z
    span = depth * depth / (camera.focal * camera.position[1])  # metres of ground along one pixel
    fade = 1 / (1 + (span * 14) ** 2)
    names = np.array([kinds.get(i, "") for i in range(len(canvas.labels))])
    ids = canvas.ids[top:]
    factor = _tile(textures.patches(), x / 32, z / 32) / (1 + (span * 0.8) ** 2)
    for wanted, tile, metres in (
        (("asphalt",), textures.asphalt(), 4.0),
        (("paving", "court"), textures.paving(paving), 4.0),
        (("grass", "soil"), textures.grass(), 5.0),
    ):
        mask = np.isin(names, wanted)[ids].view(np.uint8)
        if not mask.any():
            continue
        x0, y0, wide, tall = cv2.boundingRect(mask)
        part = np.s_[y0 : y0 + tall, x0 : x0 + wide]
        detail = _tile(tile, x[part] / metres, z[part] / metres) * fade[part]
        cv2.copyTo(cv2.add(factor[part], detail), mask[part], factor[part])
    factor += 1
    view = canvas.paint[top:]
    view[:] = cv2.multiply(
        view, cv2.merge([factor, factor, factor, np.ones_like(factor)]), dtype=cv2.CV_8U
    )


def _tile(tile: np.ndarray, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Look a tile up at (x, z) in tiles, nearest pixel, as a relative change of brightness."""
    size = tile.shape[0]
    columns = (x * size).astype(np.int32) & (size - 1)
    rows = (z * size).astype(np.int32) & (size - 1)
    table = (tile.astype(np.float32) - 128) * (1 / 128)
    return table.ravel()[rows * size + columns]


def _cast(canvas: Canvas, below: np.ndarray, shadows: list[np.ndarray]):
    """Darken the ground where hulls stand between it and the sun, and under everything a little."""
    camera, light = canvas.camera, canvas.light
    dark = np.zeros(canvas.ids.shape, np.uint8)
    if light.direct.max() > 0.05:
        for points in shadows:
            fallen = light.fall(points)
            outline = cv2.convexHull(fallen[:, [0, 2]].astype(np.float32))[:, 0]
            seen = clip_near(camera.to_camera(_lift(outline, 0.02)))
            if len(seen) >= 3:
                pixels = np.rint(np.clip(camera.project(seen), -3e4, 3e4) * 16).astype(np.int32)
                cv2.fillConvexPoly(dark, pixels, 255, cv2.LINE_AA, 4)
    dark = cv2.blur(dark, (5, 3))
    dark[~below] = 0
    factor = 1 - dark[..., None].astype(np.float32) * (
        (1 - light.shadow()).astype(np.float32) / 255
    )
    top = int(np.argmax(below.any(1)))
    view = canvas.paint[top:]
    whole = np.dstack([factor[top:], np.ones_like(factor[top:, :, :1])])
    view[:] = cv2.multiply(view, whole, dtype=cv2.CV_8U)


def contact(canvas: Canvas, corners: np.ndarray, strength: float = 0.6):
    """A soft dark patch on the ground under a thing: world corners (4, 3), in colour only."""
    centre = corners.mean(0)
    for grow in (1.12, 1.02, 0.9):
        points = clip_near(canvas.camera.to_camera(centre + (corners - centre) * grow))
        if len(points) < 3:
            return
        pixels = canvas.camera.project(points)
        box = canvas.box_of(pixels)
        if box is None:
            return
        left, top, right, bottom = box
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillConvexPoly(
            mask, np.rint((pixels - (left, top)) * 16).astype(np.int32), 255, cv2.LINE_AA, 4
        )
        factor = 1 - mask.astype(np.float32) * (strength / 3 * 1.3 / 255)
        view = canvas.paint[top:bottom, left:right]
        ones = np.ones_like(factor)
        view[:] = cv2.multiply(view, cv2.merge([factor, factor, factor, ones]), dtype=cv2.CV_8U)
