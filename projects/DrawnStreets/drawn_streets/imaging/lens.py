"""Lens distortion, and the bonnet of the car that carries the camera."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ..classes import IGNORE_LABEL
from ..render.canvas import Canvas
from ..scene.street import Street

DISTORTIONS = (0.02, 0.04, 0.06, 0.09, 0.12)  # magnification of the image centre, minus 1


@dataclass(frozen=True)
class Lens:
    """A lens: its distortion, and the height and tilt of the bonnet as shares of the image."""

    distortion: float = 0.0
    bonnet: tuple[float, float] | None = None

    @classmethod
    def sample(cls, rng: np.random.Generator, street: Street) -> "Lens":
        """Sample a lens: 40 % have distortion; the bonnet is visible in 25 % of the car views."""
        distortion = (
            float(DISTORTIONS[rng.integers(len(DISTORTIONS))]) if rng.random() < 0.4 else 0.0
        )
        driven = street.view in ("ahead", "oblique") and rng.random() < 0.25
        return cls(
            distortion, (rng.uniform(0.02, 0.13), rng.uniform(-0.05, 0.05)) if driven else None
        )

    def draw_bonnet(self, canvas: Canvas) -> None:
        """Paint the bonnet with the label ignore; it reflects the sky near its edge."""
        if self.bonnet is None:
            return
        camera, rng = canvas.camera, canvas.colour_rng
        colours = canvas.palette.cars
        body = np.array(colours[rng.integers(len(colours))], float) * rng.uniform(0.4, 1.0)
        high, lean = self.bonnet
        across = np.linspace(-0.62, 0.62, 24)
        rim = 1 - high * np.clip(1 - (across / 0.62) ** 4, 0, 1) + lean * across * high
        surface = canvas.add_surface(IGNORE_LABEL, 0.5)
        mirror = np.array([196.0, 204, 212])
        for step, share in enumerate(np.linspace(0.7, 0.0, 6) * rng.uniform(0.2, 1.0)):
            top = (0.5 + across) * camera.width, (rim + 0.12 * high * step) * camera.height
            outline = np.stack([*top], 1)
            corners = [(1.2 * camera.width, 1.3 * camera.height)]
            corners += [(-0.2 * camera.width, 1.3 * camera.height)]
            colour = canvas.shade(body + (mirror - body) * share, np.array([[0.0, 1.0, 0.0]]))[0]
            canvas.fill_polygon(
                np.concatenate([outline, corners]), colour, None if step else surface
            )

    def apply(self, picture: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Apply the distortion to a picture (H, W, 3) float32 and its label (H, W)."""
        if not self.distortion:
            return picture, label
        maps = _distortion_maps(*label.shape, self.distortion)
        return (
            cv2.remap(picture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
            cv2.remap(label, *maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE),
        )


@lru_cache(maxsize=len(DISTORTIONS))
def _distortion_maps(height: int, width: int, distortion: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the source column and row of every pixel, (H, W) float32; corners are fixed."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - 0.5 * (width - 1), y - 0.5 * (height - 1)
    radius = (x * x + y * y) / (0.25 * ((width - 1) ** 2 + (height - 1) ** 2))
    scale = 1 + distortion * (radius - 1)
    shown = x * scale + 0.5 * (width - 1), y * scale + 0.5 * (height - 1)
    return tuple(part.astype(np.float32) for part in shown)
