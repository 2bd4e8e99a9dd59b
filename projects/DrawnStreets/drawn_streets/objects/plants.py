"""Trees and bushes: sprites of leaves and branches, rendered once per process."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ..classes import VEGETATION
from ..render.canvas import SUNLIT, Canvas
from ..render.mesh import draw_rods
from .ground import KERB

CLUSTERS = {"leafy": 90, "poplar": 80, "bush": 70, "conifer": 150}
VARIANTS = {"leafy": 8, "conifer": 4, "bare": 5, "bush": 4, "poplar": 3}


@dataclass(frozen=True)
class Plant:
    """A plant of a kind from ``VARIANTS`` at (x, z); ``height`` and ``spread`` in metres."""

    kind: str
    x: float
    z: float
    height: float
    spread: float
    variant: int

    def corners(self) -> np.ndarray:
        """Return points around the crown."""
        turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        low = 0.15 if self.kind in ("bush", "conifer") else 0.45
        rings = [
            np.stack([self.x + r * np.cos(turn), np.full(8, y), self.z + r * np.sin(turn)], 1)
            for r, y in (
                (self.spread * 0.42, self.height * low),
                (self.spread * 0.3, self.height * 0.9),
            )
        ]
        return np.concatenate(rings)


@lru_cache(maxsize=64)
def _sprite(kind: str, variant: int) -> tuple[np.ndarray, ...]:
    """Return mip levels (h, w, 3): brightness, alpha, label alpha; light from the upper right."""
    rng = np.random.default_rng((77, *kind.encode(), variant))
    size = 640
    tone, alpha = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    if kind == "bare":
        tone, alpha = _bare_tree(size, rng)
    else:
        _leafy_crown(tone, alpha, rng, kind)
    reach = 15 if kind == "bare" else 5
    round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    cover = cv2.morphologyEx(np.pad(alpha, 16), cv2.MORPH_CLOSE, round_)[16:-16, 16:-16]
    levels = [np.dstack([tone, alpha, cover])]
    while levels[-1].shape[0] > 24:
        level = levels[-1].astype(np.float32)
        half = (level.shape[1] // 2, level.shape[0] // 2)
        weight = cv2.resize(level[..., 1], half, interpolation=cv2.INTER_AREA)
        bright = cv2.resize(level[..., 0] * level[..., 1], half, interpolation=cv2.INTER_AREA)
        rest = cv2.resize(level[..., 2], half, interpolation=cv2.INTER_AREA)
        small = np.dstack([bright / np.maximum(weight, 1), weight, rest])
        levels.append(np.clip(small, 0, 255).astype(np.uint8))
    return tuple(levels)


def render_plants() -> None:
    """Render the sprites of all plants into the cache."""
    for kind, variants in VARIANTS.items():
        for variant in range(variants):
            _sprite(kind, variant)


def silhouette(plant: Plant, height: int) -> np.ndarray:
    """Return the plant's alpha (h, w) uint8, at least ``height`` pixels high if available."""
    levels = _sprite(plant.kind, plant.variant % VARIANTS[plant.kind])
    level = next((m for m in reversed(levels) if m.shape[0] >= height), levels[0])
    return np.ascontiguousarray(level[..., 1])


def _bare_tree(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return brightness and alpha of a bare tree, cropped around the trunk."""
    room = 2 * size
    tone, alpha = np.zeros((room, room), np.uint8), np.zeros((room, room), np.uint8)
    _draw_branch(tone, alpha, rng, (size, room - 1.0), -np.pi / 2, size * 0.27, size * 0.026, 8)
    left, top, width, _ = cv2.boundingRect(alpha)
    half = max(size - left, left + width - size) + 2
    crop = np.s_[max(top - 2, 0) :, max(size - half, 0) : size + half]
    return tuple(cv2.resize(image[crop], (size, size)) for image in (tone, alpha))


def _draw_branch(
    tone: np.ndarray,
    alpha: np.ndarray,
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    depth: int,
) -> None:
    """Draw a branch and, recursively, its twigs; lengths in pixels."""
    end = (start[0] + length * np.cos(angle), start[1] + length * np.sin(angle))
    line = [tuple(round(v * 8) for v in p) for p in (start, end)]
    for image, value in ((alpha, 255), (tone, int(rng.uniform(90, 200)))):
        cv2.line(image, *line, value, max(round(width), 1), cv2.LINE_AA, 3)
    if depth == 0:
        return
    for turn in (
        rng.normal(0, 0.16, 1).tolist()
        + (rng.choice((-1, 1), 2) * rng.uniform(0.3, 0.8, 2)).tolist()
    ):
        shrink = rng.uniform(0.66, 0.86)
        _draw_branch(tone, alpha, rng, end, angle + turn, length * shrink, width * 0.62, depth - 1)


def _outline(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the centres (count, 2) of leaf clusters in the unit square, y up."""
    turn, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    if kind == "conifer":  # layers that narrow towards the top
        y = np.floor(rng.beta(1.1, 1.7, count) * 9) / 9 + rng.uniform(0, 0.1, count)
        reach = 0.40 * np.maximum(1 - y, 0.05) * rng.uniform(-1, 1, count)
        return np.stack([0.5 + reach, 0.05 + 0.9 * y - 0.12 * abs(reach)], 1)
    wide, tall, middle = {
        "leafy": (0.37, 0.28, 0.66),
        "bush": (0.38, 0.34, 0.42),
        "poplar": (0.30, 0.42, 0.52),
    }[kind]
    lumps = 1 + 0.16 * np.sin(turn * rng.integers(2, 5) + rng.uniform(0, 6))
    return np.stack(
        [0.5 + wide * radius * lumps * np.cos(turn), middle + tall * radius * lumps * np.sin(turn)],
        1,
    )


def _leafy_crown(tone: np.ndarray, alpha: np.ndarray, rng: np.random.Generator, kind: str) -> None:
    """Draw clusters of leaves from back to front, dark below and bright above."""
    size = tone.shape[0]
    centres = _outline(kind, CLUSTERS[kind], rng)
    centres = centres[np.argsort(rng.uniform(size=len(centres)) - 0.6 * centres[:, 1])[::-1]]
    if kind in ("leafy", "poplar"):
        fork = (size * 4, int((1 - 0.8 * centres[:, 1].min()) * size * 8))  # eighths of a pixel
        for top in centres[:: len(centres) // 6]:
            tip = (int(top[0] * size * 8), int((1 - top[1]) * size * 8))
            for image, value in ((alpha, 255), (tone, 12)):
                cv2.line(image, fork, tip, value, max(size // 90, 1), cv2.LINE_AA, 3)
    cluster = 0.085 if kind != "conifer" else 0.05
    for centre in centres:
        sunny = 0.30 + 0.55 * (centre[1] - 0.3) + 0.4 * (centre[0] - 0.5) + rng.normal(0, 0.13)
        count = 100 if kind != "conifer" else 50
        turn, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count)) * cluster
        flat = 0.8 if kind != "conifer" else 0.45
        x, y = centre[0] + radius * np.cos(turn) * 1.1, centre[1] + flat * radius * np.sin(turn)
        lift = np.sin(turn) * radius / cluster
        bright = np.clip(sunny + 0.2 * lift + rng.normal(0, 0.12, count), 0.02, 1) * 255
        leaves = rng.uniform((3.0, 2.0, 0), (9.0, 5.0, 180), (count, 3)).tolist()
        for i in np.argsort(lift):
            leaf = (leaves[i][0], leaves[i][1])
            box = ((x[i] * size, (1 - y[i]) * size), leaf, leaves[i][2])
            cv2.ellipse(alpha, box, 255, -1, cv2.LINE_AA)
            cv2.ellipse(tone, box, float(bright[i]), -1, cv2.LINE_8)


def _ramp(canvas: Canvas, plant: Plant) -> np.ndarray:
    """Return (256, 4) RGBE colours from shaded to sunlit leaves (or bark, if bare)."""
    rng, palette = canvas.colour_rng, canvas.palette
    base = np.array(palette.leaves[rng.integers(len(palette.leaves))], float) * rng.uniform(
        0.6, 1.1
    )
    if plant.kind == "conifer":
        base = base * (0.55, 0.66, 0.72)
    if plant.kind == "bare":
        base = np.array(palette.bark, float) * rng.uniform(0.45, 0.85)
    level = np.linspace(0, 1, 256)[:, None]
    light = canvas.light
    ambient, direct = light.ambient, light.direct
    tone = ambient * (0.22 + 0.85 * level) + direct * np.clip(1.6 * level - 0.35, 0, 1.2)
    sunlit = base + (np.array([34, 26, -6]) * level if plant.kind != "bare" else 0)
    if canvas.snow:
        white = np.clip(level * 2 - 0.6, 0, 1) * canvas.snow * 0.8
        sunlit = sunlit + (np.array([228, 232, 238]) - sunlit) * white
    sun = (direct * np.clip(1.6 * level - 0.35, 0, 1.2) / tone).mean(1, keepdims=True)
    shown = np.hstack([np.clip(sunlit * tone, 0, 255), SUNLIT * sun])
    return shown.astype(np.uint8)


def draw_plant(canvas: Canvas, plant: Plant) -> None:
    """Paint trunk and crown; the label includes the gaps between leaves."""
    foot = np.array([plant.x, KERB, plant.z])
    ramp = _ramp(canvas, plant)
    depth = float(canvas.camera.to_camera(foot)[2])
    if depth < 2.0:
        return
    sun_right = (canvas.camera.rotation @ canvas.light.sun)[0] >= 0
    layers = _sprite(plant.kind, plant.variant % VARIANTS[plant.kind])
    if plant.kind in ("leafy", "poplar", "conifer") and depth < 60:
        bark = np.array(canvas.palette.bark, float)
        top = foot + np.array([0, plant.height * 0.5, 0])
        width = 0.028 * plant.height + 0.04
        draw_rods(
            canvas,
            [foot],
            [top],
            [(width * 0.5, width * 0.3)],
            bark[None],
            canvas.add_surface(VEGETATION, depth),
        )
    canvas.draw_sprite(
        foot, (plant.spread, plant.height), layers, ramp, VEGETATION, flip=not sun_right
    )
