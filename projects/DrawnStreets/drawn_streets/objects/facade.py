"""Facades as flat RGBE textures: walls, windows, doors, shop fronts and cornices."""

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from ..domains import Palette
from ..render import textures
from ..types import Vector

EMISSION = 235  # of a lit window
INTERIOR_LIGHT = np.array([255.0, 220, 160])
REFLECTION = np.array([150.0, 168, 188])  # of the sky in glass
CLOTH = np.array([206.0, 200, 188])  # of curtains and blinds


@dataclass(frozen=True)
class FacadeStyle:
    """The shape of a facade in metres."""

    storeys: int
    storey: float = 3.1
    bay: float = 2.6
    window: tuple[float, float] = (1.1, 1.6)
    ground: str = "flat"  # "flat", "shop" or "blank"
    balconies: bool = False
    ribbon: bool = False  # ribbon windows, as in offices
    cornice: float = 0.35

    @property
    def height(self) -> float:
        extra = 0.5 if self.ground == "shop" else 0.2
        return self.storeys * self.storey + extra + self.cornice


@dataclass(frozen=True)
class FacadePaint:
    """The colours and the material of one building."""

    wall: np.ndarray
    material: str
    trim: np.ndarray
    frame: np.ndarray
    glass: np.ndarray
    shop: np.ndarray

    @classmethod
    def sample(cls, rng: np.random.Generator, palette: Palette) -> "FacadePaint":
        wall = np.array(palette.facades[rng.integers(len(palette.facades))], float)
        wall = np.clip(wall * rng.uniform(0.86, 1.1) + rng.normal(0, 5, 3), 20, 250)
        material = palette.materials[rng.integers(len(palette.materials))]
        pale = np.array([222.0, 218, 208])
        trim = pale if rng.random() < 0.5 else np.clip(wall * rng.uniform(0.75, 1.25), 0, 245)
        frames = ((232, 232, 228), (70, 60, 52), (60, 66, 72), (228, 226, 220), (90, 62, 44))
        frame = np.array(frames[rng.integers(len(frames))], float)
        glass = np.array([52.0, 60, 68]) * rng.uniform(0.7, 1.35)
        shops = (
            (150, 36, 36),
            (34, 70, 120),
            (36, 92, 62),
            (40, 40, 44),
            (190, 150, 60),
            (120, 60, 110),
            (216, 212, 202),
            (196, 92, 40),
            (60, 110, 130),
        )
        shop = np.array(shops[rng.integers(len(shops))], float)
        return cls(wall, material, trim, frame, glass, shop)


def paint_facade(
    style: FacadeStyle,
    paint: FacadePaint,
    width: float,
    density: int,
    *,
    rng: np.random.Generator,
    lit: float,
) -> np.ndarray:
    """Paint a facade ``width`` metres wide at ``density`` pixels per metre.

    ``rng`` decides every colour, ``lit`` is the share of lit windows; returns RGBE (h, w, 4) uint8.
    """
    shift, span, start = (
        rng.integers(0, 256, 2),
        rng.uniform(60, 300, 2),
        int(rng.integers(512)),
    )
    wall = textures.coloured_material(
        paint.wall,
        paint.material,
        (width, style.height),
        density,
        shift,
        partial(_stain, span, start),
    )
    pen = _Pen(wall, density)
    pen.bar(0, style.cornice, paint.trim)
    if pen.fine:
        pen.bar(0.3 * style.cornice, 0.3 * style.cornice + 0.06, paint.trim * 0.7)
    for depth, shade in ((0.1, 0.5), (0.22, 0.68), (0.4, 0.84)):
        pen.darken(0, style.cornice + depth - 0.1, width, style.cornice + depth, shade)
    if style.ground != "blank":
        _storeys(pen, style, paint, width, rng, lit)
    if style.ground == "shop":
        top = style.height - style.cornice - style.storey - 0.5
        _shop(pen, paint, width, top, style.height, rng, lit)
    else:
        pen.darken(0, style.height - rng.uniform(0.2, 0.9), width, style.height, 0.68)
    if style.ground == "flat":
        _door(pen, paint, rng.uniform(0.15, 0.85) * width, rng)
    if pen.fine:
        _clutter(pen, style, paint, width, rng)
    return wall


def _clutter(
    pen: "_Pen", style: FacadeStyle, paint: FacadePaint, width: float, rng: np.random.Generator
) -> None:
    """Paint drain pipes, boxes, small signs and cables."""
    bottom = style.height
    for x in rng.uniform(0, width, rng.integers(0, 2 + int(width / 9))):
        pen.rect(x, style.cornice, x + 0.1, bottom, paint.wall * rng.uniform(0.35, 0.8))
        pen.darken(x + 0.1, style.cornice, x + 0.16, bottom, 0.75)
    for _ in range(rng.integers(0, 6)):
        x, y = rng.uniform(0, width), rng.uniform(style.cornice + 0.5, bottom - 0.4)
        wide, tall = rng.uniform(0.15, 0.9), rng.uniform(0.15, 0.7)
        pen.darken(x + 0.06, y + 0.08, x + wide + 0.08, y + tall + 0.12, 0.7)
        pen.rect(x, y, x + wide, y + tall, rng.uniform(30, 235) + rng.uniform(-25, 25, 3))
        pen.rect(x, y + 0.7 * tall, x + wide, y + tall, rng.uniform(30, 235, 3))
    if rng.random() < 0.3:
        y = rng.uniform(0.3, 0.9) * bottom
        pen.rect(0, y, width, y + 0.04, paint.wall * 0.45)


def _storeys(
    pen: "_Pen",
    style: FacadeStyle,
    paint: FacadePaint,
    width: float,
    rng: np.random.Generator,
    lit: float,
) -> None:
    """Paint rows of windows, bands between storeys, shutters and balconies."""
    upper = style.storeys - (1 if style.ground == "shop" else 0)
    windows = [_window(style, paint, pen.density, rng, lit) for _ in range(6)]
    bays = max(int(width / style.bay), 1)
    pitch = width / bays
    chosen = rng.integers(0, len(windows), (upper, bays))
    if rng.random() < 0.3:
        _pilasters(pen, style, paint, pitch, bays)
    shutters = rng.uniform(0.3, 1.0) * paint.shop if rng.random() < 0.2 else None
    blind = rng.random() < 0.3  # some bays have no window
    for level in range(upper):
        top = style.cornice + level * style.storey + 0.55
        if style.ribbon:
            pen.rect(0.2, top - 0.1, width - 0.2, top + style.window[1] + 0.1, paint.frame * 0.6)
        for bay in range(bays):
            if blind and chosen[level, bay] == 0:
                continue
            left = (bay + 0.5) * pitch - 0.5 * style.window[0] - 0.1
            if shutters is not None and not style.ribbon:
                for x in (left - 0.4, left + style.window[0] + 0.2):
                    pen.rect(x, top, x + 0.4, top + style.window[1], shutters)
            pen.stamp(windows[chosen[level, bay]], left, top - 0.1)
            if style.balconies and bay % 2 == 0 and level < style.storeys - 1:
                _balcony(pen, left - 0.3, top + style.window[1], style.window[0] + 0.8)
        if level and not level % 2 and style.cornice > 0.3:
            pen.bar(top - 0.5, top - 0.38, paint.trim * 0.95)


def _pilasters(
    pen: "_Pen", style: FacadeStyle, paint: FacadePaint, pitch: float, bays: int
) -> None:
    """Paint flat columns between the bays, with one bright and one dark edge."""
    for bay in range(bays + 1):
        x = bay * pitch
        pen.rect(x - 0.22, style.cornice, x + 0.22, style.height, paint.wall * 1.06)
        pen.rect(x - 0.22, style.cornice, x - 0.17, style.height, paint.wall * 1.22)
        pen.darken(x + 0.17, style.cornice, x + 0.3, style.height, 0.66)


class _Pen:
    """Paints on a texture in metres from its top left corner."""

    def __init__(self, image: np.ndarray, density: int) -> None:
        self.image, self.density = image, density
        self.fine = density >= 12  # whether small parts are visible

    def rect(
        self, x0: float, y0: float, x1: float, y1: float, colour: Vector, emission: int = 0
    ) -> None:
        scale = self.density
        left, top = max(int(x0 * scale + 0.5), 0), max(int(y0 * scale + 0.5), 0)
        right, low = max(int(x1 * scale + 0.5), left + 1), max(int(y1 * scale + 0.5), top + 1)
        red, green, blue = colour
        colour = [min(max(value, 0), 255) for value in (red, green, blue)]
        self.image[top:low, left:right] = (*colour, emission)

    def bar(self, y0: float, y1: float, colour: Vector) -> None:
        self.rect(0, y0, self.image.shape[1] / self.density, y1, colour)

    def darken(self, x0: float, y0: float, x1: float, y1: float, factor: float) -> None:
        """Multiply the colours of a rectangle."""
        left, top = max(int(x0 * self.density + 0.5), 0), max(int(y0 * self.density + 0.5), 0)
        part = self.image[top : int(y1 * self.density + 0.5), left : int(x1 * self.density + 0.5)]
        if part.size:
            part[..., :3] = cv2.convertScaleAbs(np.ascontiguousarray(part[..., :3]), alpha=factor)

    def stamp(self, picture: np.ndarray, x: float, y: float) -> None:
        left, top = max(int(x * self.density + 0.5), 0), max(int(y * self.density + 0.5), 0)
        target = self.image[top : top + picture.shape[0], left : left + picture.shape[1]]
        target[:] = picture[: target.shape[0], : target.shape[1]]


def _stain(span: np.ndarray, start: int, height: int, width: int) -> np.ndarray:
    """Return large soft stains (128 = 1) that are darker towards the ground."""
    rows = (np.arange(height) * (span[0] / height)).astype(int) % 512
    columns = (np.arange(width) * (span[1] / width) + start).astype(int) % 512
    stain = textures.grain(1.6, 51, 0.05)[rows][:, columns]
    fall = np.linspace(0, 1, height, dtype=np.float32) ** 3 * 13
    return cv2.subtract(stain, np.repeat(fall.astype(np.uint8)[:, None], width, 1))


def _window(
    style: FacadeStyle, paint: FacadePaint, density: int, rng: np.random.Generator, lit: float
) -> np.ndarray:
    """Return a window with surround, sill, reveal, panes, curtains or blinds."""
    width, height = style.window
    size = (max(int((height + 0.3) * density), 3), max(int((width + 0.2) * density), 2), 4)
    pen = _Pen(np.zeros(size, np.uint8), density)
    pen.rect(0, 0, 9, 9, paint.trim)
    x0, y0, x1, y1 = 0.1, 0.12, 0.1 + width, 0.12 + height
    pen.rect(x0, y0, x1, y1, paint.frame)
    on, warmth, bright, depth, drape, cloth, drop = rng.random(7)
    on = on < lit
    warm = INTERIOR_LIGHT * (0.7 + 0.3 * warmth)
    sky = REFLECTION * (0.4 + 0.6 * bright)
    edge, steps, emission = 0.07, 4 if pen.fine else 2, EMISSION if on else 0
    pitch = (height - 2 * edge) / steps
    for i in range(steps):
        mix = (0.1 + 0.65 * depth) * (1 - i / steps) ** 1.5
        tone = warm * (0.75 + 0.25 * i / steps) if on else paint.glass * (1 - mix) + sky * mix
        top = y0 + edge + i * pitch
        pen.rect(x0 + edge, top, x1 - edge, top + pitch, tone, emission)
    tone = CLOTH * (0.5 + 0.45 * cloth) * (1.15 if on else 0.8)
    if drape < 0.25:
        for side in (x0 + edge, x1 - edge - 0.22 * width):
            pen.rect(side, y0 + edge, side + 0.22 * width, y1 - edge, tone, int(0.6 * emission))
    elif drape < 0.5:
        low = y0 + edge + height * (0.15 + 0.45 * drop)
        pen.rect(x0 + edge, y0 + edge, x1 - edge, low, tone, int(0.6 * emission))
    if pen.fine:
        pen.rect((x0 + x1) / 2 - 0.025, y0, (x0 + x1) / 2 + 0.025, y1, paint.frame)
        if height > 1.3:
            pen.rect(x0, y0 + 0.42 * height, x1, y0 + 0.42 * height + 0.05, paint.frame)
        for deep, shade in ((0.25, 0.75), (0.12, 0.6)):  # shadows of the lintel and of a jamb
            pen.darken(x0, y0, x1, y0 + deep, shade)
            pen.darken(x0, y0, x0 + 0.6 * deep, y1, shade)
        pen.rect(0, y1 + 0.12, width + 0.2, y1 + 0.18, paint.wall * 0.5)
    pen.rect(0, y1 + 0.02, width + 0.2, y1 + 0.12, paint.trim * 1.08)
    return pen.image


def _door(pen: _Pen, paint: FacadePaint, x: float, rng: np.random.Generator) -> None:
    colour = paint.shop * rng.uniform(0.6, 1.0)
    bottom = pen.image.shape[0] / pen.density
    pen.rect(x - 0.68, bottom - 2.6, x + 0.68, bottom, paint.trim)
    pen.rect(x - 0.5, bottom - 2.45, x + 0.5, bottom - 0.1, colour)
    pen.rect(x - 0.5, bottom - 2.45, x + 0.5, bottom - 2.1, paint.glass)
    for row in (1.85, 1.0) if pen.fine else ():
        pen.rect(x - 0.36, bottom - row, x - 0.05, bottom - row + 0.65, colour * 0.78)
        pen.rect(x + 0.05, bottom - row, x + 0.36, bottom - row + 0.65, colour * 0.78)
    pen.rect(x - 0.8, bottom - 0.12, x + 0.8, bottom, paint.trim * 0.8)


def _balcony(pen: _Pen, x: float, y: float, width: float) -> None:
    dark = (48, 48, 52)
    pen.rect(x, y - 0.1, x + width, y + 0.12, (168, 164, 158))
    pen.rect(x, y + 0.12, x + width, y + 0.24, (70, 68, 66))
    pen.rect(x, y - 0.95, x + width, y - 0.88, dark)
    for bar in np.arange(x, x + width, 0.16) if pen.fine else ():
        pen.rect(bar, y - 0.95, bar + 0.03, y - 0.1, dark)


def _shop(
    pen: _Pen,
    paint: FacadePaint,
    width: float,
    top: float,
    height: float,
    rng: np.random.Generator,
    lit: float,
) -> None:
    """Paint a shop front: a sign board with letters, goods behind glass, a door and a plinth."""
    pen.rect(0, top, width, height, paint.shop * 0.5)
    pen.rect(0.15, top + 0.15, width - 0.15, top + 0.8, paint.shop)
    bright = (240, 236, 222) if paint.shop.mean() < 150 else (50, 44, 40)
    start, end, on = rng.random(3)
    x, end = width * (0.12 + 0.18 * start), width * (0.6 + 0.3 * end)
    for tall, letter, gap in rng.random((int(width * 3), 3)) if pen.fine else ():
        letter = 0.14 + 0.16 * letter
        if x > end:
            break
        pen.rect(x, top + 0.26 + 0.14 * tall, x + letter, top + 0.66, bright, 120 if lit else 0)
        pen.rect(x + 0.05, top + 0.42, x + letter - 0.04, top + 0.5, paint.shop)
        x += letter + (0.06 if gap < 0.7 else 0.25)
    panes = max(int(width / 1.7), 1)
    door, on = rng.integers(panes), on < min(1.6 * lit, 0.9)
    emission = EMISSION if on else 0
    for pane, light in enumerate(rng.uniform(0.7, 1.5, panes)):
        x0, x1 = 0.2 + pane * (width - 0.4) / panes, 0.1 + (pane + 1) * (width - 0.4) / panes
        base = INTERIOR_LIGHT if on else paint.glass * light
        low = height - (0.1 if pane == door else 0.55)
        pen.rect(x0, top + 0.95, x1, low, base, emission)
        pen.rect(x0, top + 0.95, x1, top + 0.95 + 0.3 * (low - top), base * 0.8 + 26, emission)
        for gx, gy, wide, tall, *goods in rng.random((5, 7)) if pen.fine else ():
            gx, gy = x0 + gx * (x1 - x0 - 0.2), low - 1.1 + 0.7 * gy
            goods = (40 + 170 * np.array(goods)) * (1.0 if on else 0.5)
            pen.rect(
                gx,
                gy,
                min(gx + 0.15 + 0.35 * wide, x1),
                gy + 0.2 + 0.3 * tall,
                goods,
                emission // 2,
            )
        if pane == door:
            pen.rect((x0 + x1) / 2 - 0.03, top + 0.95, (x0 + x1) / 2 + 0.03, low, paint.shop * 0.6)
