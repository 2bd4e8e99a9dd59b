"""The ground: carriageway, road markings, and raised blocks with kerbs and lots."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from ..classes import ROAD, TERRAIN
from ..render import textures
from ..render.camera import NEAR, clip_near
from ..render.canvas import SHIFT, Canvas, modulate, to_fixed_point
from ..types import Vector

KERB = 0.12  # height of a block above the carriageway in metres

# Materials, a function that returns their texture, and the metres that the texture covers.
DETAIL = (
    (("asphalt",), lambda ground: textures.paving(ground.road), 4),
    (("paving", "court"), lambda ground: textures.paving(ground.paving), 4),
    (("grass", "soil"), lambda _: textures.grass(), 5),
)


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
    """A strip on the carriageway: outline (N, 2), name of its colour, opacity."""

    outline: np.ndarray
    paint: str = "white"
    opacity: float = 0.85


@dataclass
class Ground:
    """All flat surfaces in painting order."""

    patches: list[Patch] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    road: str = "asphalt"  # one of textures.PAVINGS
    paving: str = "slabs"


def rectangle(x0: float, x1: float, z0: float, z1: float, step: float = 5.0) -> np.ndarray:
    """Return an outline with enough corners along z to follow the street's curvature."""
    z = np.linspace(z0, z1, max(int((z1 - z0) / step), 1) + 1)
    left, right = np.stack([np.full_like(z, x0), z], 1), np.stack([np.full_like(z, x1), z], 1)
    return np.concatenate([left, right[::-1]])


def rounded(x0: float, x1: float, z0: float, z1: float, radius: float, sign: int) -> np.ndarray:
    """Return a rectangle with round corners next to the street: at x0 if sign > 0, else at x1."""
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


def _fill(canvas: Canvas, world: np.ndarray, colour: Vector | None, surface: int | None) -> None:
    """Fill a flat polygon, convex or not."""
    points = canvas.camera.to_camera(world)
    if points[:, 2].max() <= NEAR:
        return
    pixels = canvas.camera.project(clip_near(points))
    if canvas.clipped_box(pixels) is None:
        return
    corners = [to_fixed_point(pixels)]
    if colour is not None:
        cv2.fillPoly(canvas.paint, corners, tuple(map(float, colour)), cv2.LINE_AA, SHIFT)
    if surface is not None:
        cv2.fillPoly(canvas.ids, corners, surface, cv2.LINE_8, SHIFT)


def _colours(canvas: Canvas, ground: Ground) -> dict[str, np.ndarray]:
    """Return one RGBE colour per material, shaded on level ground."""
    rng, palette = canvas.colour_rng, canvas.palette
    base = {
        name: np.array(colours[rng.integers(len(colours))], float)
        for name, colours in (
            ("asphalt", palette.asphalt),
            ("paving", palette.paving),
            ("grass", palette.grass),
            ("white", palette.markings),
        )
    }
    base["asphalt"] = base["asphalt"] * rng.uniform(0.65, 1.25)
    if ground.road != "asphalt":
        base["asphalt"] = base["asphalt"] * 0.6 + np.array([52.0, 50, 47])
    if ground.paving == "asphalt":
        base["paving"] = base["asphalt"]
    elif ground.paving == "bricks" and rng.random() < 0.7:
        base["paving"] = np.array([152.0, 100, 84])
    base["paving"] = base["paving"] * rng.uniform(0.75, 1.15)
    base["soil"] = base["grass"] * 0.35 + np.array([100, 84, 66]) * 0.65
    base["court"] = 0.5 * base["paving"] + 0.5 * base["asphalt"]
    base["kerb"] = base["paving"] * 0.6 + np.array([70.0, 69, 68])
    base["yellow"] = np.array([212.0, 172, 60])
    base["patch"] = base["asphalt"] * rng.uniform(0.72, 1.2)
    base["rail"] = np.array([96.0, 94, 92])
    base["dark"] = np.array([52.0, 52, 54])
    base["bay"] = base["asphalt"] * 0.6 + np.array([58.0, 44, 40])
    up = np.array([[0.0, 1.0, 0.0]])
    shown = {}
    for name, colour in base.items():
        shown[name] = canvas.shade([colour], up)[0]
    if canvas.snow:
        for name in ("asphalt", "white", "yellow", "patch", "bay", "rail", "dark"):
            bare = base[name] * canvas.light.shade(up)[0]
            slush = 0.45 * canvas.snow
            shown[name][:3] = bare * (1 - slush) + shown[name][:3] * slush
    return shown


def paint_ground(canvas: Canvas, ground: Ground) -> None:
    """Paint all flat surfaces."""
    camera, colours = canvas.camera, _colours(canvas, ground)
    level = camera.level(KERB)
    top = _first_row(canvas)
    below = (camera.ray(1, top) < -1e-3).view(np.uint8)
    kinds = {}
    road = canvas.add_surface(ROAD, camera.level(0.0))
    far = canvas.add_surface(TERRAIN, level)
    kinds[road], kinds[far] = "asphalt", "grass"
    for image, value in ((canvas.ids, far), (canvas.paint, colours["grass"])):
        plain = np.empty_like(image[top:])
        plain[:] = value
        cv2.copyTo(plain, below, image[top:])
    carriageway = rectangle(-90, 90, -70, 260)
    _fill(canvas, _lift(carriageway, 0.0), colours["asphalt"], road)
    for mark in ground.marks:
        base = colours["asphalt"]
        shade = base + (colours[mark.paint] - base) * mark.opacity
        _fill(canvas, _lift(mark.outline, 0.0), shade, None)
    for patch in ground.patches:
        surface = canvas.add_surface(patch.label, camera.level(patch.y))
        kinds[surface] = patch.material
        if patch.kerb:
            _kerb(canvas, patch, colours["kerb"], surface)
        _fill(canvas, _lift(patch.outline, patch.y), colours[patch.material], surface)
    _apply_textures(canvas, top, kinds, ground)


def _kerb(canvas: Canvas, patch: Patch, colour: Vector, surface: int) -> None:
    """Paint the upright faces of a block's kerb within 70 metres."""
    here, there = patch.outline, np.roll(patch.outline, -1, 0)
    near = np.hypot(*(here - canvas.camera.position[[0, 2]]).T) < 70
    low, high = _lift(here, 0.0), _lift(here, patch.y)
    faces = np.stack([low, _lift(there, 0.0), _lift(there, patch.y), high], 1)[near]
    for face in canvas.camera.to_camera(faces):
        if face[:, 2].max() > NEAR:
            canvas.draw_polygon(face, np.multiply(colour, (0.8, 0.8, 0.8, 1)), surface)


def _first_row(canvas: Canvas) -> int:
    """Return the topmost row in which ground can be visible."""
    camera = canvas.camera
    slope = abs(camera.rotation[0, 1] / camera.rotation[1, 1]) * 0.5 * camera.width
    return int(np.clip(camera.horizon() - slope - 1, 0, camera.height - 1))


def _apply_textures(canvas: Canvas, top: int, kinds: dict[int, str], ground: Ground) -> None:
    """Multiply the ground by its textures, which fade with the ground area of a pixel."""
    camera = canvas.camera
    fall = np.maximum(-camera.ray(1, top), 1e-3)
    depth = np.minimum(np.float32(camera.position[1]) / fall, 400)
    z = depth * camera.ray(2, top)
    x = depth * camera.ray(0, top) + np.float32(camera.position[0])
    x -= np.float32(0.5 * camera.curvature) * z * z
    span = depth * depth * np.float32(1 / (camera.focal * camera.position[1]))  # metres a pixel
    fade = 1 / (1 + (span * 14) ** 2)
    materials = [m for m, _, _ in DETAIL]
    codes = np.zeros(len(canvas.labels), np.uint8)
    for surface, name in kinds.items():
        codes[surface] = 1 + next(i for i, names in enumerate(materials) if name in names)
    code = np.take(codes, canvas.ids[top:])
    factor = 128 + _tile(textures.patches(), x, z, 32) / (1 + (span * 0.8) ** 2)
    for number, (_, texture, metres) in enumerate(DETAIL, 1):
        mask = cv2.compare(code, number, cv2.CMP_EQ)
        x0, y0, wide, tall = cv2.boundingRect(mask)
        if wide:
            part = np.s_[y0 : y0 + tall, x0 : x0 + wide]
            detail = _tile(texture(ground), x[part], z[part], metres) * fade[part]
            if number == 1:
                detail += np.take(textures.wear(), (x[part] * 16).astype(np.int32) & 511)
            cv2.add(factor[part], detail, factor[part], mask[part])
    modulate(canvas.paint[top:], np.clip(factor, 0, 255).astype(np.uint8))


def _tile(tile: np.ndarray, x: np.ndarray, z: np.ndarray, metres: int) -> np.ndarray:
    """Sample a tile at (x, z), nearest neighbour: float32, 0 = neutral, 128 = factor 2."""
    size, scale = tile.shape[0], np.float32(tile.shape[0] / metres)
    columns = (x * scale).astype(np.int32) & (size - 1)
    rows = (z * scale).astype(np.int32) & (size - 1)
    return np.take((tile.astype(np.float32) - 128).ravel(), rows * size + columns)


def draw_contact_shadow(canvas: Canvas, corners: np.ndarray, strength: float = 0.6) -> None:
    """Darken the ground under an object with world corners (4, 3), in colour only."""
    centre = corners.mean(0)
    points = clip_near(canvas.camera.to_camera(centre + (corners - centre) * 1.02))
    if len(points) < 3:
        return
    pixels = canvas.camera.project(points)
    soft = 2 * int(np.clip(0.12 * canvas.camera.focal / points[:, 2].mean(), 0, 12)) + 1
    reach = np.array([[-soft, -soft], [soft, soft]]) * 2 + [pixels.min(0), pixels.max(0)]
    box = canvas.clipped_box(reach)
    if box is None:
        return
    left, top, right, bottom = box
    factor = np.full((bottom - top, right - left), 128, np.uint8)
    shade = int(128 * (1 - strength))
    cv2.fillConvexPoly(factor, to_fixed_point(pixels - (left, top)), shade, cv2.LINE_AA, SHIFT)
    for _ in range(2):
        factor = cv2.blur(factor, (2 * soft + 1, soft), borderType=cv2.BORDER_REPLICATE)
    modulate(canvas.paint[top:bottom, left:right], factor)
