"""Tileable grey textures, made once per process from fixed seeds.

Noise is float32 with mean 0 and standard deviation 1. Materials are uint8 factors with ``DENSITY``
pixels per metre over ``TILE`` metres; 128 leaves the colour's brightness unchanged.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np

from ..types import Vector

DENSITY = 64
TILE = 8.0
MATERIALS = (
    "brick",
    "stone",
    "plaster",
    "siding",
    "panel",
    "planks",
    "tiles",
    "leaves",
    "glass",
    "adobe",
)


# Rows and stones per row in 4 metres, joint width in metres, standard deviation of the tones.
PAVINGS: dict[str, tuple[int, int, float, float] | None] = {
    "slabs": (8, 5, 0.012, 0.06),
    "setts": (32, 20, 0.018, 0.10),
    "concrete": (2, 1, 0.01, 0.03),
    "bricks": (40, 20, 0.008, 0.09),
    "asphalt": None,  # without stones
}


@lru_cache(maxsize=32)
def fractal_noise(beta: float, seed: int, size: int = 512) -> np.ndarray:
    """Return noise with amplitude proportional to frequency**-beta; beta 0 is white noise."""
    rng = np.random.default_rng(seed)
    white = np.fft.rfft2(rng.standard_normal((size, size)))
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    radius[0, 0] = 1.0
    noise = np.fft.irfft2(white * radius**-beta * (radius < 1), (size, size))
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def _courses(
    width: float,
    height: float,
    joint: float,
    *,
    seed: int,
    jitter: float,
    dark: float,
    size: int,
    offset: float = 0.5,
) -> np.ndarray:
    """Return courses of blocks, ``width`` x ``height`` metres, with every second row shifted."""
    rng = np.random.default_rng(seed)
    rows, columns = round(TILE / height), round(TILE / width)
    y, x = np.mgrid[0:size, 0:size] / size
    row = np.floor(y * rows).astype(int)
    along = (x * columns + offset * (row % 2)) % columns
    column = np.floor(along).astype(int)
    tone = 1 + jitter * rng.standard_normal((rows, columns))
    picture = tone[row, column]
    edge = np.minimum((y * rows) % 1 * height, along % 1 * width)
    return np.where(edge < joint, dark, picture).astype(np.float32)


@lru_cache(maxsize=64)
def material(name: str, density: int = DENSITY) -> np.ndarray:
    """Return a material's tile at ``density`` pixels per metre, uint8 (8 * density)**2."""
    if density != DENSITY:
        side = int(TILE * density)
        return cv2.resize(material(name), (side, side), interpolation=cv2.INTER_AREA)
    size = int(TILE * DENSITY)
    fine, rough, cloudy = (
        fractal_noise(0.4, 11, size),
        fractal_noise(1.0, 12, size),
        fractal_noise(1.7, 13, size),
    )
    if name == "brick":
        tile = _courses(0.22, 0.075, 0.011, seed=1, jitter=0.13, dark=1.18, size=size)
    elif name == "stone":
        tile = _courses(0.8, 0.4, 0.018, seed=2, jitter=0.08, dark=0.78, size=size)
    elif name == "siding":
        tile = _courses(8.0, 0.16, 0.02, seed=3, jitter=0.02, dark=0.74, size=size, offset=0)
    elif name == "panel":
        tile = _courses(2.67, 1.33, 0.03, seed=4, jitter=0.03, dark=0.72, size=size, offset=0)
    elif name == "glass":
        tile = _courses(1.6, 2.0, 0.05, seed=5, jitter=0.22, dark=0.45, size=size, offset=0)
    elif name == "planks":
        tile = _courses(0.14, 8.0, 0.014, seed=6, jitter=0.12, dark=0.45, size=size, offset=0)
    elif name == "tiles":
        tile = _courses(0.25, 0.33, 0.03, seed=7, jitter=0.12, dark=0.66, size=size)
    elif name == "leaves":
        tile = 1 + 0.26 * fractal_noise(0.55, 14, size) + 0.12 * cloudy
    elif name == "adobe":
        tile = 1 + 0.06 * rough + 0.07 * cloudy
    elif name == "plaster":
        tile = 1 + 0.03 * rough + 0.035 * cloudy
    else:
        raise ValueError(f"unknown material {name!r}: expected one of {', '.join(MATERIALS)}")
    tile = tile * (1 + 0.025 * fine + 0.03 * cloudy)
    return np.clip(tile * 128, 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def grain(beta: float, seed: int, contrast: float) -> np.ndarray:
    """Return fractal noise as uint8 factors (128 = 1)."""
    return np.clip(128 * (1 + contrast * fractal_noise(beta, seed)), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def gloss() -> np.ndarray:
    """Return soft horizontal reflections on glossy paint, (512, 2048) uint8 factors (128 = 1)."""
    noise = 0.15 * fractal_noise(1.6, 62) + 0.02 * fractal_noise(0.8, 63)
    return np.clip(128 * (1 + cv2.resize(noise, (2048, 512))), 0, 255).astype(np.uint8)


def coloured_material(
    colour: Vector,
    name: str,
    metres: tuple[float, float],
    density: int,
    shift: Sequence[int] | np.ndarray = (0, 0),
    stain: Callable[[int, int], np.ndarray] | None = None,
) -> np.ndarray:
    """Return a rectangle of a coloured material, RGBE (h, w, 4) uint8.

    Parameters
    ----------
    colour : sequence of float
        RGB.
    name : str
        One of ``MATERIALS``.
    metres : tuple of float
        Width and height.
    density : int
        Pixels per metre.
    shift : sequence of int
        First row and column in the material's tile.
    stain : callable, optional
        Returns further uint8 factors (128 = 1) for a height and width in pixels.
    """
    tile = material(name, density)
    width, height = (max(round(m * density), 2) for m in metres)
    rows = (np.arange(height) + shift[0]) % tile.shape[0]
    columns = (np.arange(width) + shift[1]) % tile.shape[1]
    grey = tile[rows][:, columns]
    if stain is not None:
        grey = cv2.multiply(grey, stain(height, width), scale=1 / 128)
    levels = np.arange(256)[:, None] * (np.array([*colour[:3], 0.0]) / 128)
    return np.take(np.clip(levels, 0, 255).astype(np.uint8), grey, 0)


def texture_density(pixels_per_metre: float, limit: int = 40) -> int:
    """Round up to one of a few densities, so that resized materials can be cached."""
    for density in (3, 5, 8, 12, 18, 27, 40, 64):
        if density >= pixels_per_metre or density >= limit:
            return density
    return limit


@lru_cache(maxsize=4)
def patches() -> np.ndarray:
    """Return stains, wear and cracks, 512 x 512 uint8 for 32 metres (128 = neutral)."""
    cracks = np.clip(1 - np.abs(fractal_noise(1.5, 24)) * 22, 0, 1) * (fractal_noise(1.4, 25) > 0.9)
    return np.clip(128 * (1 + 0.07 * fractal_noise(1.3, 23) - 0.25 * cracks), 0, 255).astype(
        np.uint8
    )


@lru_cache(maxsize=4)
def grass() -> np.ndarray:
    """Return grass, 512 x 512 uint8 for 5 metres (128 = neutral)."""
    blades = cv2.GaussianBlur(fractal_noise(0.0, 26), (1, 5), 0.8) * 1.7
    return np.clip(128 * (1 + 0.16 * blades + 0.10 * fractal_noise(1.0, 27)), 0, 255).astype(
        np.uint8
    )


@lru_cache(maxsize=1)
def wear() -> np.ndarray:
    """Return wheel tracks and oil stains across a road, (512,) float32 for 32 metres."""
    rows = np.tile(fractal_noise(0.9, 28)[:1], (1, 3))
    return 8 * cv2.GaussianBlur(rows, (0, 0), 4)[0, 512:1024]


@lru_cache(maxsize=8)
def paving(kind: str) -> np.ndarray:
    """Return a tile of one of ``PAVINGS``, 512 x 512 uint8 for 4 metres (128 = neutral)."""
    size = 512
    blocks = PAVINGS[kind]
    if blocks is None:
        grain = cv2.GaussianBlur(fractal_noise(0.0, 21), (3, 3), 0.7) * 1.6
        return np.clip(128 * (1 + 0.075 * grain + 0.03 * fractal_noise(1.0, 22)), 0, 255).astype(
            np.uint8
        )
    rows, columns, joint, spread = blocks
    rng = np.random.default_rng((30, *kind.encode()))
    y, x = np.mgrid[0:size, 0:size] / size
    row = np.floor(y * rows).astype(int)
    along = (x * columns + 0.5 * (row % 2)) % columns
    tone = 1 + spread * rng.standard_normal((rows, columns))
    edge = np.minimum((y * rows) % 1 * 4 / rows, along % 1 * 4 / columns)
    tile = np.where(edge < joint, 0.72, tone[row, along.astype(int)])
    return np.clip(128 * tile * (1 + 0.05 * fractal_noise(0.4, 33)), 0, 255).astype(np.uint8)
