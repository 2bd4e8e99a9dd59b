"""Sun and sky as two lights; every surface is shaded by its normal alone."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Light:
    """``sun`` points towards the sun; ``direct`` and ``ambient`` are RGB, 1 = full paint."""

    sun: np.ndarray
    direct: np.ndarray
    ambient: np.ndarray

    @classmethod
    def from_sky(cls, azimuth: float, elevation: float, strength: float) -> "Light":
        """``strength`` 0 = overcast, 1 = clear sun; a low sun is warmer."""
        sun = np.array(
            [
                np.sin(azimuth) * np.cos(elevation),
                np.sin(elevation),
                np.cos(azimuth) * np.cos(elevation),
            ]
        )
        warmth = np.clip(1.2 - 1.4 * elevation, 0, 1)
        direct = strength * (np.array([0.80, 0.74, 0.66]) + warmth * np.array([0.06, -0.05, -0.18]))
        ambient = (1 - strength) * np.array([0.86, 0.88, 0.90]) + strength * np.array(
            [0.46, 0.50, 0.57]
        )
        return cls(sun, direct, ambient)

    def shade(self, normals: np.ndarray) -> np.ndarray:
        """Unit normals (..., 3), y up -> RGB factors (..., 3)."""
        sky = 0.78 + 0.22 * normals[..., 1:2]
        return self.ambient * sky + self.direct * np.clip(normals @ self.sun, 0, None)[..., None]

    def share(self, normals: np.ndarray) -> np.ndarray:
        """Unit normals (..., 3) -> the sun's share in their brightness, (..., 1)."""
        ambient = self.ambient.mean() * (0.78 + 0.22 * normals[..., 1:2])
        direct = self.direct.mean() * np.clip(normals @ self.sun, 0, None)[..., None]
        return direct / (ambient + direct)

    def shadow_factor(self) -> np.ndarray:
        """RGB factor of level ground in a cast shadow, relative to lit ground."""
        return self.ambient / (self.ambient + self.direct * max(self.sun[1], 0.0))
