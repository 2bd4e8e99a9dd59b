"""From paint to photograph: haze, night, rain, and what a camera does to a picture."""

from functools import lru_cache

import cv2
import numpy as np

from . import textures
from .canvas import Canvas
from .domains import Domain

COARSE = 4  # light at night varies slowly: it is computed on every fourth pixel


def _pick(rng: np.random.Generator, pair: tuple[float, float]) -> float:
    return float(rng.uniform(*pair))


def photograph(
    canvas: Canvas, domain: Domain, darkness: float, lamps, mood: np.random.Generator
) -> np.ndarray:
    """The finished picture, (H, W, 3) uint8 RGB."""
    inverse = canvas.inverse_depth()
    picture = cv2.cvtColor(canvas.paint, cv2.COLOR_RGBA2RGB).astype(np.float32)
    sky = canvas.label_image() == 10
    haze_colour = np.array([206, 212, 220], np.float32) * (0.75 + 0.25 * (1 - darkness))
    if darkness > 0:
        picture *= _night_light(canvas, inverse, darkness, lamps, sky)
        haze_colour *= 1 - 0.9 * darkness
    density = _pick(mood, domain.haze)
    seen = cv2.exp(-density / np.maximum(inverse, 1e-4))
    seen[sky] = 1 - min(density * 24, 0.92)
    veil = np.empty_like(picture)
    veil[:] = haze_colour
    picture = cv2.blendLinear(picture, veil, seen, 1 - seen)
    wet = _pick(mood, domain.wet)
    if wet > 0:
        picture = _mirror(canvas, picture, wet)
    if darkness > 0.1:
        picture = _glow(canvas, picture, darkness)
    rain = _pick(mood, domain.rain)
    if rain > 0:
        picture += _streaks(picture.shape[:2], rain, mood)[..., None] * (0.3 + 0.7 * (1 - darkness))
    return _camera(picture, domain, mood)


def _night_light(canvas: Canvas, inverse, darkness: float, lamps, sky) -> np.ndarray:
    """RGB factor (H, W, 3): a little sky, pools under street lamps, our own headlights."""
    camera = canvas.camera
    rays = camera.rays(COARSE)
    metres = 1 / np.maximum(inverse[::COARSE, ::COARSE], 1 / 150)
    world = camera.position.astype(np.float32) + rays * metres[..., None]
    night = np.array([0.10, 0.12, 0.17], np.float32)
    light = np.ones_like(rays) * (1 + (night - 1) * darkness)
    warm = np.array([1.0, 0.80, 0.52], np.float32)
    pool = np.zeros(rays.shape[:2], np.float32)
    for lamp in sorted(lamps, key=lambda p: abs(p[2] - 10))[:10]:
        place = camera.bent(lamp).astype(np.float32)
        pool += 1 / (1 + ((world - place) ** 2).sum(-1) / 14)
    light += darkness * 1.6 * pool[..., None] * warm
    ahead = np.clip(rays[..., 2] / np.linalg.norm(rays, axis=2), 0, 1)
    beam = np.exp(-(((rays @ camera.rotation[0].astype(np.float32)) / 0.42) ** 2)) * np.clip(
        1.25 - (world[..., 1] / 1.4), 0, 1
    )
    light += (darkness * 0.9 * ahead * beam / (1 + (metres / 17) ** 2))[..., None]
    full = cv2.resize(light, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    full[sky] = 1 + (np.array([0.09, 0.09, 0.13]) - 1) * darkness
    shine = (canvas.paint[..., 3].astype(np.float32) * (1 / 255))[..., None]
    return full + (1.05 - full) * shine


def _mirror(canvas: Canvas, picture: np.ndarray, wet: float) -> np.ndarray:
    """A wet road shows what stands upside down beyond it: the picture flipped about the horizon."""
    height = picture.shape[0]
    labels = canvas.label_image()
    horizon = int(np.clip(canvas.camera.horizon(), 1, height - 2))
    rows = np.clip(2 * horizon - np.arange(height), 0, height - 1)
    flipped = cv2.blur(picture[rows], (5, max(height // 20, 3)))
    weight = np.where(labels <= 1, np.float32(wet), np.float32(0))
    weight[labels == 1] *= 0.5
    puddles = textures.fractal(1.2, 71)[np.arange(height) % 512][
        :, np.arange(picture.shape[1]) % 512
    ]
    weight *= np.clip(0.75 + 0.2 * cv2.blur(puddles, (41, 5)), 0, 1)
    weight[:horizon] = 0
    return (
        picture * (1 - 0.3 * weight[..., None])
        + (flipped - picture * 0.7) * weight[..., None] * 0.9
    )


def _glow(canvas: Canvas, picture: np.ndarray, darkness: float) -> np.ndarray:
    """Halos around what shines."""
    size = (canvas.camera.width // COARSE, canvas.camera.height // COARSE)
    shine = canvas.paint[..., 3:].astype(np.float32) * (1 / 255)
    small = cv2.resize(picture * shine, size, interpolation=cv2.INTER_AREA)
    wide = max(size[1] // 7, 1) | 1
    halo = (
        cv2.GaussianBlur(small, (0, 0), size[1] / 60) * 0.9
        + cv2.blur(cv2.blur(small, (wide, wide)), (wide, wide)) * 0.8
    )
    return picture + darkness * cv2.resize(halo, (canvas.camera.width, canvas.camera.height))


def _streaks(shape: tuple[int, int], density: float, mood: np.random.Generator) -> np.ndarray:
    """Falling drops as short, nearly upright strokes (H, W) float32."""
    height, width = shape
    image = np.zeros(shape, np.uint8)
    slant = mood.normal(0, 0.12)
    for x, y, length, bright in mood.uniform(
        (0, 0, 0.02, 20), (width, height, 0.07, 90), (int(220 * density), 4)
    ):
        end = (int(x + slant * length * height), int(y + length * height))
        cv2.line(image, (int(x), int(y)), end, int(bright), 1, cv2.LINE_AA)
    return cv2.blur(image, (3, 3)).astype(np.float32)


@lru_cache(maxsize=4)
def _vignette(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = (x * x + y * y).astype(np.float32)
    return cv2.merge([radius] * 3)


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    """(512, 512, 3) float32 white noise of standard deviation 1."""
    return cv2.merge([textures.fractal(0.0, 81 + channel) for channel in range(3)])


@lru_cache(maxsize=1)
def _shoulder() -> np.ndarray:
    """Film-like clipping: linear up to 200, then bending softly towards 255; for 0..1023."""
    level = np.arange(1024.0)
    bent = 200 + 55 * (1 - np.exp(-(level - 200) / 55))
    return np.where(level > 200, bent, level).astype(np.uint8)


def _camera(picture: np.ndarray, domain: Domain, mood: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, contrast, saturation, blur, vignette, noise."""
    height, width = picture.shape[:2]
    gain = np.array(domain.tint) * _pick(mood, domain.exposure) * (1 + mood.normal(0, 0.03, 3))
    contrast, saturation = _pick(mood, domain.contrast), _pick(mood, domain.saturation)
    grey = np.full((3, 3), (1 - saturation) / 3) + saturation * np.eye(3)
    mix = np.column_stack([contrast * grey * gain, np.full(3, 118 * (1 - contrast))])
    picture = cv2.transform(picture, mix.astype(np.float32))
    picture -= picture * (_vignette(height, width) * np.float32(mood.uniform(0, 0.13)))
    shift = mood.integers(0, 512, 2)
    noise = cv2.copyMakeBorder(
        np.roll(_noise_tile(), shift, (0, 1)),
        0,
        max(height - 512, 0),
        0,
        max(width - 512, 0),
        cv2.BORDER_WRAP,
    )[:height, :width]
    sigma, strength = _pick(mood, domain.blur) * height / 512, _pick(mood, domain.noise)
    if sigma > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    picture = cv2.addWeighted(picture, 1, noise, strength, 0)
    return np.take(_shoulder(), np.clip(picture, 0, 1023).astype(np.uint16))
