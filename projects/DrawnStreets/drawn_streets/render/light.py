"""Sunlight and ambient skylight; the shading of a surface depends only on its normal."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Light:
    """The light: ``sun`` is its direction, ``direct`` and ``ambient`` are RGB irradiances."""

    sun: np.ndarray
    direct: np.ndarray
    ambient: np.ndarray

    @classmethod
    def from_sky(cls, azimuth: float, elevation: float, strength: float) -> "Light":
        """Make the light of a sky with the sun at this azimuth and elevation (radians).

        ``strength`` is 0 for an overcast sky and 1 for a clear one; a low sun is warmer.
        """
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
        """Return the RGB factors (..., 3) of unit normals (..., 3) with y up."""
        sky = 0.78 + 0.22 * normals[..., 1:2]
        return self.ambient * sky + self.direct * np.clip(normals @ self.sun, 0, None)[..., None]

    def share(self, normals: np.ndarray) -> np.ndarray:
        """Return the share of direct sunlight (..., 1) for unit normals (..., 3)."""
        ambient = self.ambient.mean() * (0.78 + 0.22 * normals[..., 1:2])
        direct = self.direct.mean() * np.clip(normals @ self.sun, 0, None)[..., None]
        return direct / (ambient + direct)

    def shadow_factor(self) -> np.ndarray:
        """Return the RGB factor of level ground in a cast shadow, relative to sunlit ground."""
        return self.ambient / (self.ambient + self.direct * max(self.sun[1], 0.0))
