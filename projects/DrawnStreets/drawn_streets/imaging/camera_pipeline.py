"""The camera pipeline: exposure, optics, sensor, tone curve, sharpening and compression."""

from functools import lru_cache

import cv2
import numpy as np

from ..domains import Domain, sample_range
from ..render import textures

METER = 8  # width and height in pixels of one cell of the light meter
LEVELS = 4096  # entries of the tone curve's table


def photograph(
    picture: np.ndarray, domain: Domain, darkness: float, rng: np.random.Generator
) -> np.ndarray:
    """Convert linear radiance (H, W, 3) float32, which is modified, to an RGB image, uint8."""
    saturation = sample_range(rng, domain.saturation)
    grey = np.full((3, 3), (1 - saturation) / 3) + saturation * np.eye(3)
    gain = _exposure(picture, domain, darkness, rng) * _white_balance(domain, rng)
    picture = cv2.transform(picture, (grey * gain).astype(np.float32))
    picture = _optics(picture, domain, rng)
    signal = cv2.sqrt(np.maximum(picture, 0, out=picture))
    signal = _sensor(signal, domain, rng)
    table = _tone_curve(sample_range(rng, domain.contrast), rng)
    signal *= np.float32(LEVELS / 2)
    codes = np.clip(signal, 0, LEVELS - 1, out=signal).astype(np.uint16)
    return _jpeg_artifacts(np.take(table, codes), rng)


def _exposure(
    picture: np.ndarray, domain: Domain, darkness: float, rng: np.random.Generator
) -> float:
    """Return the metered exposure with an error of some stops; night scenes stay darker."""
    cells = cv2.resize(picture, None, fx=1 / METER, fy=1 / METER, interpolation=cv2.INTER_AREA)
    light = np.minimum(cells.mean(2), 4.0)
    rows = np.linspace(-1, 1, len(light))[:, None] - rng.uniform(-0.4, 0.6)
    weight = np.exp(-((rows / rng.uniform(0.4, 1.5)) ** 2)) + np.zeros_like(light)
    metered = float((light * weight).sum() / weight.sum())
    stops = sample_range(rng, domain.exposure)
    if rng.random() < domain.backlit:  # exposed for the sky, so the street is dark
        stops -= rng.uniform(0.8, 2.6)
    return float(2**stops * (0.2 / max(metered, 1e-4)) ** (1 - 0.55 * darkness))


def _white_balance(domain: Domain, rng: np.random.Generator) -> np.ndarray:
    """Return RGB gains of an imperfect white balance."""
    warm, green = rng.normal(0, 0.1), rng.normal(0, 0.03)
    return np.array(domain.tint) ** 2 * np.exp([warm, green, -warm])[:, None].T


def _optics(picture: np.ndarray, domain: Domain, rng: np.random.Generator) -> np.ndarray:
    """Apply vignetting, stray light, defocus and motion blur."""
    height, width = picture.shape[:2]
    stray = rng.uniform(0.0, 0.05) if rng.random() < 0.6 else 0.0
    picture *= 1 - np.float32(rng.uniform(0, 0.3) * (rng.random() < 0.7)) * _radius(height, width)
    if stray:
        size = (max(width // METER, 1), max(height // METER, 1))
        small = cv2.GaussianBlur(cv2.resize(picture, size), (0, 0), max(size[1] / 8, 1))
        picture = cv2.addWeighted(picture, 1 - stray, cv2.resize(small, (width, height)), stray, 0)
    sigma = sample_range(rng, domain.blur) * height / 512
    if rng.random() < 0.12:  # the camera moves
        turn, reach = rng.uniform(-0.5, 0.5), int(rng.uniform(2, 7) * height / 512) | 1
        line = np.zeros((reach, reach), np.float32)
        half = reach // 2
        rise = round(half * np.sin(turn))
        cv2.line(line, (0, half - rise), (reach - 1, half + rise), 1.0)
        picture = cv2.filter2D(picture, -1, line / line.sum())
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma > 0.2 else picture


@lru_cache(maxsize=4)
def _radius(height: int, width: int) -> np.ndarray:
    """Return the squared distance from the centre, 1 in the corners, (H, W, 3) float32."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return cv2.merge([(0.5 * (x * x + y * y)).astype(np.float32)] * 3)


def _sensor(signal: np.ndarray, domain: Domain, rng: np.random.Generator) -> np.ndarray:
    """Apply resolution loss, noise and sharpening to the square root of the radiance.

    The square root stabilises the variance of shot noise.
    """
    height, width = signal.shape[:2]
    down = rng.uniform(0.4, 0.85) if rng.random() < 0.35 else 1.0
    size = (max(int(width * down), 16), max(int(height * down), 16))
    if down < 1:
        signal = cv2.resize(signal, size, interpolation=cv2.INTER_AREA)
    strength = sample_range(rng, domain.noise) / 255
    signal = cv2.addWeighted(signal, 1, _noise(signal.shape[:2], rng), strength, 0)
    if rng.random() < 0.5:
        amount = rng.uniform(0.3, 1.2)
        signal = cv2.addWeighted(signal, 1 + amount, cv2.blur(signal, (3, 3)), -amount, 0)
    return cv2.resize(signal, (width, height)) if down < 1 else signal


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return noise of standard deviation 1, (H, W, 3) float32."""
    tile = np.roll(_noise_tile(), rng.integers(0, 512, 2), (0, 1))
    more = [max(length - 512, 0) for length in shape]
    tile = cv2.copyMakeBorder(tile, 0, more[0], 0, more[1], cv2.BORDER_WRAP)
    return tile[: shape[0], : shape[1]]


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    """Return sensor noise: strong in luminance, weaker and coarser in chrominance."""
    colour = [cv2.GaussianBlur(textures.fractal_noise(0.0, 81 + i), (5, 5), 1.0) for i in range(3)]
    grey = cv2.GaussianBlur(textures.fractal_noise(0.0, 84), (3, 3), 0.5)
    tile = cv2.merge([grey + part for part in colour])
    return tile / tile.std()


def _tone_curve(contrast: float, rng: np.random.Generator) -> np.ndarray:
    """Return the tone curve (LEVELS,) uint8 over square roots of radiance from 0 to 2."""
    x = np.linspace(0, 2, LEVELS) ** (2 * rng.uniform(0.44, 0.54))
    x = 0.45 * (x / 0.45) ** contrast
    knee = rng.uniform(0.6, 0.9)  # start of the highlight compression
    over = np.maximum(x - knee, 0)
    x = np.where(x > knee, knee + (1 - knee) * np.tanh(over / (1 - knee)), x)
    black = rng.uniform(-0.03, 0.04)
    return np.clip(255 * (black + (1.02 - black) * x), 0, 255).astype(np.uint8)


def _jpeg_artifacts(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add JPEG artifacts to 70 % of the images."""
    if rng.random() > 0.7:
        return picture
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(40, 95))]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
