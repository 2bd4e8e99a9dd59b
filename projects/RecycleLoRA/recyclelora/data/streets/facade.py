"""Facades as flat RGBE textures: wall, windows, doors, shop fronts, cornices."""

from dataclasses import dataclass

import cv2
import numpy as np

from . import textures

SHINE = 235  # how strongly a lit window glows at night


@dataclass(frozen=True)
class FacadeStyle:
    """The shape of a facade in metres; colours come from the picture's palette."""

    storeys: int
    storey: float = 3.1
    bay: float = 2.6
    window: tuple[float, float] = (1.1, 1.6)
    ground: str = "flat"  # "flat", "shop" or "blank"
    balconies: bool = False
    ribbon: bool = False  # windows joined into bands, as in offices
    cornice: float = 0.35

    @property
    def height(self) -> float:
        extra = 0.5 if self.ground == "shop" else 0.2
        return self.storeys * self.storey + extra + self.cornice


@dataclass(frozen=True)
class FacadePaint:
    """The colours of one building."""

    wall: np.ndarray
    material: str
    trim: np.ndarray
    frame: np.ndarray
    glass: np.ndarray
    shop: np.ndarray

    @classmethod
    def draw(cls, look: np.random.Generator, palette):
        wall = np.array(palette.facades[look.integers(len(palette.facades))], float)
        wall = np.clip(wall * look.uniform(0.86, 1.1) + look.normal(0, 5, 3), 20, 250)
        material = palette.materials[look.integers(len(palette.materials))]
        pale = np.array([222.0, 218, 208])
        trim = pale if look.random() < 0.5 else np.clip(wall * look.uniform(0.75, 1.25), 0, 245)
        frames = ((232, 232, 228), (70, 60, 52), (60, 66, 72), (228, 226, 220), (90, 62, 44))
        frame = np.array(frames[look.integers(len(frames))], float)
        glass = np.array([52.0, 60, 68]) * look.uniform(0.7, 1.35)
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
        shop = np.array(shops[look.integers(len(shops))], float)
        return cls(wall, material, trim, frame, glass, shop)


def paint_facade(
    style: FacadeStyle, paint: FacadePaint, width: float, density: int, *, look, lit: float
):
    """The facade ``width`` metres wide at ``density`` pixels per metre: RGBE (h, w, 4) uint8.

    ``look`` decides every colour; ``lit`` is the share of windows with the lights on.
    """
    shift = look.integers(0, 256, 2)
    wall = textures.surfaced(paint.wall, paint.material, (width, style.height), density, shift)
    _weather(wall, look)
    pen = _Pen(wall, density)
    floor = style.height - style.cornice
    pen.bar(0, style.cornice, paint.trim)
    pen.bar(style.cornice, style.cornice + 0.12, paint.wall * 0.55)
    upper = style.storeys - (1 if style.ground == "shop" else 0)
    windows = [_window(style, paint, density, look, lit) for _ in range(4)]
    bays = max(int(width / style.bay), 1)
    pitch = width / bays
    door = int(look.integers(bays))
    for level in range(upper):
        top = style.cornice + level * style.storey + 0.55
        bottom_row = style.ground == "flat" and level == upper - 1
        if style.ground == "blank":
            break
        if style.ribbon:
            pen.rect(0.2, top - 0.1, width - 0.2, top + style.window[1] + 0.1, paint.frame * 0.6)
        for bay in range(bays):
            window = windows[look.integers(4)]
            left = (bay + 0.5) * pitch - window.shape[1] / density / 2
            if bottom_row and bay == door:
                _door(pen, paint, (bay + 0.5) * pitch, floor, look)
            else:
                pen.stamp(window, left, top - 0.1)
                if style.balconies and bay % 2 == 0 and not bottom_row:
                    _balcony(pen, left - 0.3, top + style.window[1], 1.8)
        if level and not level % 2 and style.cornice > 0.3:
            pen.bar(top - 0.5, top - 0.38, paint.trim * 0.95)
    if style.ground == "shop":
        _shop(pen, paint, width, floor - style.storey - 0.5, style.height, look, lit)
    else:
        pen.bar(style.height - 0.5, style.height, paint.wall * 0.62)
    return wall


class _Pen:
    """Paints rectangles on a texture in metres from its top left corner."""

    def __init__(self, image: np.ndarray, density: int):
        self.image, self.density = image, density

    def rect(self, x0, y0, x1, y1, colour, shine=0):
        x0, y0, x1, y1 = (max(int(round(v * self.density)), 0) for v in (x0, y0, x1, y1))
        self.image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = (
            *np.clip(colour, 0, 255)[:3],
            shine,
        )

    def bar(self, y0, y1, colour):
        self.rect(0, y0, self.image.shape[1] / self.density, y1, colour)

    def stamp(self, picture: np.ndarray, x: float, y: float):
        left, top = max(int(round(x * self.density)), 0), max(int(round(y * self.density)), 0)
        target = self.image[top : top + picture.shape[0], left : left + picture.shape[1]]
        target[:] = picture[: target.shape[0], : target.shape[1]]


def _weather(wall: np.ndarray, look):
    """Large soft stains and streaks, darker towards the ground."""
    height, width = wall.shape[:2]
    rows = np.linspace(0, look.uniform(60, 300), height).astype(int) % 512
    columns = (np.linspace(0, look.uniform(60, 300), width) + look.integers(512)).astype(int) % 512
    stain = textures.fractal(1.6, 51)[rows][:, columns] * 0.05
    stain += 1 - 0.1 * np.linspace(0, 1, height, dtype=np.float32)[:, None] ** 3
    wall[:] = cv2.multiply(wall, cv2.merge([stain] * 3 + [np.ones_like(stain)]), dtype=cv2.CV_8U)


def _window(style: FacadeStyle, paint: FacadePaint, density: int, look, lit: float) -> np.ndarray:
    """One window with its surround, sill, reveal, panes, curtains or blinds."""
    width, height = style.window
    image = np.zeros(
        (max(int((height + 0.3) * density), 3), max(int((width + 0.2) * density), 3), 4), np.uint8
    )
    pen = _Pen(image, density)
    pen.rect(0, 0, 9, 9, paint.trim)
    x0, y0, x1, y1 = 0.1, 0.12, 0.1 + width, 0.12 + height
    pen.rect(x0, y0, x1, y1, paint.frame)
    shines = look.random(3)
    on = shines[0] < lit
    warm = np.array([255.0, 214, 150]) * (0.7 + 0.3 * shines[1])
    steps = 6
    edge = 0.07
    sky = np.array([150.0, 168, 188]) * look.uniform(0.4, 1.0)
    depth = look.uniform(0.1, 0.75)
    for i in range(steps):
        mix = depth * (1 - i / steps) ** 1.5
        tone = warm * (0.75 + 0.25 * i / steps) if on else paint.glass * (1 - mix) + sky * mix
        top = y0 + edge + (height - 2 * edge) * i / steps
        pen.rect(
            x0 + edge, top, x1 - edge, top + (height - 2 * edge) / steps, tone, SHINE if on else 0
        )
    drape = look.random()
    cloth = np.array([206.0, 200, 188]) * look.uniform(0.5, 0.95) * (1.15 if on else 0.8)
    glow = int(SHINE * 0.6) if on else 0
    if drape < 0.25:
        for side in (x0 + edge, x1 - edge - 0.22 * width):
            pen.rect(side, y0 + edge, side + 0.22 * width, y1 - edge, cloth, glow)
    elif drape < 0.5:
        pen.rect(
            x0 + edge,
            y0 + edge,
            x1 - edge,
            y0 + edge + height * look.uniform(0.15, 0.6),
            cloth,
            glow,
        )
    bar = 0.05
    pen.rect((x0 + x1 - bar) / 2, y0, (x0 + x1 + bar) / 2, y1, paint.frame)
    if height > 1.3:
        pen.rect(x0, y0 + 0.42 * height, x1, y0 + 0.42 * height + bar, paint.frame)
    pen.rect(x0, y0, x1, y0 + 0.07, paint.glass * 0.45)
    pen.rect(0, y1 + 0.02, width + 0.2, y1 + 0.12, paint.trim * 1.08)
    pen.rect(0, y1 + 0.12, width + 0.2, y1 + 0.18, paint.wall * 0.5)
    return image


def _door(pen: _Pen, paint: FacadePaint, x: float, floor: float, look):
    colour = paint.shop * look.uniform(0.6, 1.0)
    bottom = pen.image.shape[0] / pen.density
    pen.rect(x - 0.68, bottom - 2.6, x + 0.68, bottom, paint.trim)
    pen.rect(x - 0.5, bottom - 2.45, x + 0.5, bottom - 0.1, colour)
    pen.rect(x - 0.5, bottom - 2.45, x + 0.5, bottom - 2.1, paint.glass)
    for row in (1.85, 1.0):
        pen.rect(x - 0.36, bottom - row, x - 0.05, bottom - row + 0.65, colour * 0.78)
        pen.rect(x + 0.05, bottom - row, x + 0.36, bottom - row + 0.65, colour * 0.78)
    pen.rect(x - 0.8, bottom - 0.12, x + 0.8, bottom, paint.trim * 0.8)


def _balcony(pen: _Pen, x: float, y: float, width: float):
    dark = np.array([48.0, 48, 52])
    pen.rect(x, y - 0.1, x + width, y + 0.12, (168, 164, 158))
    pen.rect(x, y + 0.12, x + width, y + 0.24, (70, 68, 66))
    pen.rect(x, y - 0.95, x + width, y - 0.88, dark)
    for bar in np.arange(x, x + width, 0.16):
        pen.rect(bar, y - 0.95, bar + 0.03, y - 0.1, dark)


def _shop(pen: _Pen, paint: FacadePaint, width: float, top: float, height: float, look, lit: float):
    """A shop front: sign board with strokes for letters, glass with goods behind, a door, a plinth."""
    pen.rect(0, top, width, height, paint.shop * 0.5)
    pen.rect(0.15, top + 0.15, width - 0.15, top + 0.8, paint.shop)
    bright = np.array([240.0, 236, 222]) if paint.shop.mean() < 150 else np.array([50.0, 44, 40])
    x, end = width * look.uniform(0.12, 0.3), width * look.uniform(0.6, 0.9)
    while x < end:
        letter = look.uniform(0.14, 0.3)
        pen.rect(
            x, top + look.uniform(0.26, 0.4), x + letter, top + 0.66, bright, 120 if lit else 0
        )
        pen.rect(x + 0.05, top + 0.42, x + letter - 0.04, top + 0.5, paint.shop)
        x += letter + look.choice((0.06, 0.06, 0.25))
    panes = max(int(width / 1.7), 1)
    door = look.integers(panes)
    on = look.random() < min(1.6 * lit, 0.9)
    for pane in range(panes):
        x0, x1 = 0.2 + pane * (width - 0.4) / panes, 0.2 + (pane + 1) * (width - 0.4) / panes - 0.1
        base = np.array([250.0, 226, 176]) if on else paint.glass * look.uniform(0.7, 1.5)
        low = height - (0.1 if pane == door else 0.55)
        shine = SHINE if on else 0
        pen.rect(x0, top + 0.95, x1, low, base, shine)
        pen.rect(x0, top + 0.95, x1, top + 0.95 + 0.3 * (low - top), base * 0.8 + 26, shine)
        for _ in range(5):
            gx, gy = look.uniform(x0, x1 - 0.2), look.uniform(low - 1.1, low - 0.4)
            goods = look.uniform(40, 210, 3) * (1.0 if on else 0.5)
            pen.rect(
                gx,
                gy,
                min(gx + look.uniform(0.15, 0.5), x1),
                gy + look.uniform(0.2, 0.5),
                goods,
                shine // 2,
            )
        if pane == door:
            pen.rect((x0 + x1) / 2 - 0.03, top + 0.95, (x0 + x1) / 2 + 0.03, low, paint.shop * 0.6)
