"""From painted colours to radiance: shadows, night lighting, haze, wet ground and rain."""

from functools import lru_cache

import cv2
import numpy as np

from ..classes import ROAD, SIDEWALK, SKY
from ..domains import Domain, sample_range
from ..render import textures
from ..render.canvas import Canvas
from ..scene.layout import SceneObject
from ..types import Vector
from .shadows import shadow_mask

COARSE = 4  # night lighting is smooth, so it is computed for every fourth pixel


def radiance(
    canvas: Canvas,
    domain: Domain,
    darkness: float,
    shadow_casters: list[SceneObject],
    lamps: list[np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the linear radiance at the camera, (H, W, 3) float32; a white surface by day is 1.

    ``shadow_casters`` are the objects whose shadows can be visible, ``lamps`` the world points of
    street lamps.
    """
    inverse, labels = canvas.inverse_depth(), canvas.label_image()
    sky = cv2.compare(labels, SKY, cv2.CMP_EQ)
    emission = canvas.emission()
    picture = cv2.cvtColor(canvas.paint, cv2.COLOR_RGBA2RGB).astype(np.float32)
    if canvas.light.direct.any():
        dark = shadow_mask(canvas, shadow_casters) * canvas.sunlit()
        cut = 1 - canvas.light.shadow_factor()
        cut /= cut.mean()  # skylight makes shadows bluish
        picture *= cv2.merge([1 - np.float32(part) * dark for part in cut])
    if darkness > 0:
        light = _night_light(canvas, inverse, darkness, lamps, sky)
        picture *= cv2.blendLinear(
            light, _constant_image(light, (1.05, 1.05, 1.05)), 1 - emission, emission
        )
    picture *= np.float32(1 / 255)
    picture *= picture  # from display values to linear, with gamma 2
    gain = np.full_like(emission, sample_range(rng, domain.sky))
    picture *= cv2.merge([cv2.copyTo(gain, sky, np.ones_like(gain))] * 3)
    density = sample_range(rng, domain.haze)
    haze = np.array([0.62, 0.66, 0.72]) * rng.uniform(0.7, 1.2) * (1 - 0.97 * darkness)
    clear = cv2.exp(-density / np.maximum(inverse, 1e-4))
    cv2.copyTo(np.full_like(clear, 1 - min(density * 24, 0.92)), sky, clear)
    picture = cv2.blendLinear(picture, _constant_image(picture, haze), clear, 1 - clear)
    wet = sample_range(rng, domain.wet)
    if wet > 0:
        picture = _reflections(canvas.camera.horizon(), labels, picture, wet)
    if darkness > 0.1:
        picture = _halos(picture, emission, darkness)
    rain = sample_range(rng, domain.rain)
    if rain > 0:
        streaks = _rain_streaks(picture.shape[:2], rain * (0.3 + 0.7 * (1 - darkness)), rng)
        picture = cv2.add(picture, cv2.merge([streaks * np.float32(0.0016)] * 3))
    return picture


def _constant_image(like: np.ndarray, colour: Vector) -> np.ndarray:
    """Return an image of one colour."""
    return cv2.merge([np.full(like.shape[:2], value, np.float32) for value in colour])


def _night_light(
    canvas: Canvas, inverse: np.ndarray, darkness: float, lamps: list[np.ndarray], sky: np.ndarray
) -> np.ndarray:
    """Return RGB factors (H, W, 3) of skylight, street lamps and the camera car's headlights."""
    camera = canvas.camera
    rays = [camera.ray(axis, step=COARSE) for axis in range(3)]
    metres = 1 / np.maximum(inverse[::COARSE, ::COARSE], np.float32(1 / 150))
    x, y, z = (np.float32(p) + ray * metres for p, ray in zip(camera.position, rays, strict=True))
    pool = np.zeros_like(metres)
    for lamp in sorted(lamps, key=lambda p: abs(p[2] - 10))[:8]:
        a, b, c = camera.apply_curvature(lamp).astype(np.float32)
        pool += 14 / (14 + (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2)
    right = camera.rotation[0].astype(np.float32)
    side = sum(r * f for r, f in zip(rays, right, strict=True))
    beam = np.exp(-((side / 0.42) ** 2)) * np.clip(1.25 - y / 1.4, 0, 1)
    beam = darkness * 0.9 * beam / (1 + (metres / 17) ** 2)
    dark = cv2.compare(np.ascontiguousarray(sky[::COARSE, ::COARSE]), 0, cv2.CMP_EQ) > 0
    light = [
        1 + (night - 1) * darkness + dark * (darkness * 1.6 * warm * pool + beam)
        for night, warm in ((0.10, 1.0), (0.11, 0.80), (0.16, 0.52))
    ]
    return cv2.resize(cv2.merge(light), (camera.width, camera.height)).astype(np.float32)


@lru_cache(maxsize=2)
def _wetness(height: int, width: int) -> np.ndarray:
    """Return the reflectivity of a wet road, (H, W) float32."""
    noise = cv2.blur(textures.fractal_noise(1.2, 71), (41, 5))
    return np.clip(0.75 + 0.2 * cv2.resize(noise, (width, height)), 0, 1)


def _reflections(horizon: float, labels: np.ndarray, picture: np.ndarray, wet: float) -> np.ndarray:
    """Add reflections to the wet ground: the image, flipped about the horizon."""
    height, width = labels.shape
    horizon = int(np.clip(horizon, 1, height - 2))
    rows = np.clip(2 * horizon - np.arange(horizon, height), 0, height - 1)
    flipped = cv2.blur(np.take(picture, rows, 0), (5, max(height // 20, 3)))
    share = np.zeros(256, np.float32)
    share[[ROAD, SIDEWALK]] = wet, 0.5 * wet
    weight = np.take(share, labels[horizon:]) * _wetness(height, width)[horizon:]
    ground = cv2.blendLinear(picture[horizon:], flipped, 1 - 0.9 * weight, 0.9 * weight)
    return np.concatenate([picture[:horizon], ground])


def _halos(picture: np.ndarray, emission: np.ndarray, darkness: float) -> np.ndarray:
    """Add halos around emitting pixels."""
    height, width = emission.shape
    size = (max(width // COARSE, 1), max(height // COARSE, 1))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    small *= cv2.resize(emission, size, interpolation=cv2.INTER_AREA)[..., None]
    wide = max(size[1] // 7, 1) | 1
    halo = cv2.GaussianBlur(small, (0, 0), size[1] / 60) * 0.9
    halo += cv2.blur(cv2.blur(small, (wide, wide)), (wide, wide)) * 0.8
    return cv2.scaleAdd(cv2.resize(halo, (width, height)), darkness, picture)


def _rain_streaks(shape: tuple[int, int], density: float, rng: np.random.Generator) -> np.ndarray:
    """Return rain as short, nearly vertical strokes, (H, W) float32."""
    height, width = shape
    image = np.zeros(shape, np.uint8)
    slant = rng.normal(0, 0.12)
    for x, y, length, bright in rng.uniform(
        (0, 0, 0.02, 20), (width, height, 0.07, 90), (int(220 * density), 4)
    ):
        end = (int(x + slant * length * height), int(y + length * height))
        cv2.line(image, (int(x), int(y)), end, int(bright), 1, cv2.LINE_AA)
    return cv2.blur(image, (3, 3)).astype(np.float32)
