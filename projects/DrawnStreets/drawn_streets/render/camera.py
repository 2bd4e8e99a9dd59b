"""A pinhole camera in a street: metres in the world, pixels in the image.

World frame: x to the right across the street, y up, z along the street. Camera frame: x right,
y down, z forward. The camera applies the street's curvature to every point, as the shear
x += curvature * z**2 / 2, so all other code can assume a straight street.
"""

from dataclasses import dataclass

import numpy as np

from ..types import Vector

NEAR = 0.25  # metres; nothing closer to the camera plane is drawn


@dataclass(frozen=True)
class Camera:
    """A camera: ``rotation`` maps world to camera directions, and ``focal`` is in pixels."""

    height: int
    width: int
    focal: float
    position: np.ndarray
    rotation: np.ndarray
    curvature: float = 0.0

    @classmethod
    def looking(
        cls,
        height: int,
        width: int,
        *,
        field_of_view: float,
        position: Vector,
        yaw: float,
        pitch: float,
        roll: float,
        curvature: float = 0.0,
    ) -> "Camera":
        """Make a camera from angles in radians.

        ``field_of_view`` spans the longer side of the image; a positive yaw turns to the right.
        """
        focal = 0.5 * max(height, width) / np.tan(0.5 * field_of_view)
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, 0, -sin], [0, -1, 0], [sin, 0, cos]])
        cos, sin = np.cos(pitch), np.sin(pitch)
        tilt = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
        cos, sin = np.cos(roll), np.sin(roll)
        spin = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return cls(height, width, focal, np.asarray(position, float), spin @ tilt @ turn, curvature)

    def apply_curvature(self, points: np.ndarray) -> np.ndarray:
        """Map world points (..., 3) of the straight street to the curved street."""
        points = np.array(points, float)
        points[..., 0] += 0.5 * self.curvature * points[..., 2] ** 2
        return points

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Map world points (..., 3) of the straight street to camera points (..., 3)."""
        return (self.apply_curvature(points) - self.position) @ self.rotation.T

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project camera points (..., 3) in front of the near plane to pixels (column, row)."""
        centre = (0.5 * self.width - 0.5, 0.5 * self.height - 0.5)
        return points[..., :2] * (self.focal / points[..., 2:]) + centre

    def ray(self, axis: int, top: int = 0, step: int = 1) -> np.ndarray:
        """Return one world component (H', W') of the ray through every ``step``-th pixel.

        Rows start at ``top``. A ray has length 1 along the camera's z axis, so the visible point is
        position + depth * ray.
        """
        columns = (np.arange(0, self.width, step) - 0.5 * self.width + 0.5) / self.focal
        rows = (np.arange(top, self.height, step) - 0.5 * self.height + 0.5) / self.focal
        across, down, ahead = self.rotation[:, axis]
        down = (down * rows + ahead).astype(np.float32)
        return down[:, None] + (across * columns).astype(np.float32)

    def plane(self, point: np.ndarray, normal: np.ndarray) -> tuple[float, float, float]:
        """Return a plane through a camera point as (a, b, c): 1 / z = a * column + b * row + c."""
        offset = float(point @ normal)
        if abs(offset) < 1e-9:
            return 0.0, 0.0, 1.0 / max(float(point[2]), NEAR)
        across, down = normal[0] / self.focal / offset, normal[1] / self.focal / offset
        centre = across * (0.5 * self.width - 0.5) + down * (0.5 * self.height - 0.5)
        return float(across), float(down), float(normal[2] / offset - centre)

    def level(self, y: float) -> tuple[float, float, float]:
        """Return the horizontal plane at height ``y`` metres in the form of :meth:`plane`."""
        down = self.rotation @ np.array([0.0, -1.0, 0.0])
        return self.plane(down * (self.position[1] - y), down)

    def horizon(self) -> float:
        """Return the row of the horizon at the image's middle column."""
        up = self.rotation[:, 1]
        return 0.5 * self.height - 0.5 - self.focal * float(up[2] / up[1])


def clip_near(polygon: np.ndarray, near: float = NEAR) -> np.ndarray:
    """Clip a convex polygon (N, 3) of camera points at depth ``near``: (M, 3), M can be 0."""
    depth = polygon[:, 2] - near
    if depth.min() >= 0:
        return polygon
    kept = []
    for i in range(len(polygon)):
        here, there = polygon[i - 1], polygon[i]
        if (depth[i - 1] >= 0) != (depth[i] >= 0):
            kept.append(here + (there - here) * (depth[i - 1] / (depth[i - 1] - depth[i])))
        if depth[i] >= 0:
            kept.append(there)
    return np.array(kept).reshape(-1, 3)
