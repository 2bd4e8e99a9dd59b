"""The sky: a gradient, clouds on a plane and a glow around the sun."""

import cv2
import numpy as np

from ..classes import SKY
from ..render import textures
from ..render.canvas import Canvas

STEP = 4  # the sky is smooth, so it is computed for every fourth pixel


def paint_sky(canvas: Canvas, clouds: float, strength: float, rng: np.random.Generator) -> None:
    """Fill the canvas with sky; ``clouds`` is the cloud cover, ``strength`` that of the sun."""
    rays = np.dstack([canvas.camera.ray(axis, step=STEP) for axis in range(3)])
    rays = rays / np.linalg.norm(rays, axis=2, keepdims=True)
    up = np.clip(rays[..., 1], 0, 1)
    grey = np.array([206, 212, 218], np.float32) * rng.uniform(0.92, 1.1)
    blue = np.array([92, 140, 202], np.float32) * rng.uniform(0.8, 1.15)
    pale = np.array([196, 214, 232], np.float32)
    zenith = grey * 0.92 + (blue - grey * 0.92) * (0.25 + 0.75 * strength) * (1 - 0.55 * clouds)
    horizon = grey * 1.05 + (pale - grey * 1.05) * strength
    rise = (1 - np.exp(-4.0 * up))[..., None]
    colour = horizon + (zenith - horizon) * rise
    density = _clouds(rays, clouds, rng)
    lit = np.array([246, 246, 248], np.float32) * (0.84 + 0.16 * strength)
    base = lit * (0.74 + 0.1 * rng.uniform())
    body = lit + (base - lit) * np.clip(density * 1.6 - 0.6, 0, 1)[..., None]
    colour = colour + (body - colour) * np.clip(density * 1.5, 0, 1)[..., None]
    away = (rays @ canvas.light.sun.astype(np.float32) - 1)[..., None]  # 0 at the sun
    if strength:
        colour = colour + strength * (90 * np.exp(24 * away) + 160 * np.exp(220 * away))
    size = (canvas.camera.width, canvas.camera.height)
    colour = np.clip(np.dstack([colour, np.zeros_like(away)]), 0, 255).astype(np.uint8)
    canvas.paint[:] = cv2.resize(colour, size, interpolation=cv2.INTER_LINEAR)
    canvas.ids[:] = canvas.add_surface(SKY, (0.0, 0.0, 0.0))


def _clouds(rays: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return the density (H', W') from 0 to 1 of clouds that cover about ``share`` of the sky."""
    noise = textures.fractal_noise(1.75, 41) + 0.35 * textures.fractal_noise(1.1, 42)
    up = np.maximum(rays[..., 1], 0.04)
    drift = rng.uniform(0, 512, 2).astype(np.float32)
    scale = np.float32(rng.uniform(50, 110))
    columns = rays[..., 0] / (up + 0.12) * scale + drift[0]
    rows = rays[..., 2] / (up + 0.12) * scale + drift[1]
    seen = cv2.remap(
        noise,
        columns.astype(np.float32) % 512,
        rows.astype(np.float32) % 512,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    threshold = 1.6 - 3.4 * share
    return np.clip((seen - threshold) / 1.3, 0, 1) * np.clip(rays[..., 1] * 9 + 0.25, 0, 1)
