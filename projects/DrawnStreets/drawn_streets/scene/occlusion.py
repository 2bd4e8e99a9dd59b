"""Occlusion culling: a coarse mask of the walls that hide objects."""

import cv2
import numpy as np

from ..objects.buildings import Building
from ..render.camera import NEAR, Camera, clip_near

COARSE = 8  # image pixels per pixel of the mask, in each direction


class OcclusionBuffer:
    """A mask to which buildings are added from the nearest to the farthest."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        size = (camera.height // COARSE + 1, camera.width // COARSE + 1)
        self.covered = np.zeros(size, np.uint8)

    def hides(self, points: np.ndarray) -> bool:
        """Return whether the buildings cover world points (N, 3) and a margin around them."""
        seen = self.camera.to_camera(points)
        if seen[:, 2].min() <= NEAR:
            return False
        pixels = self.camera.project(seen) / COARSE
        low, high = pixels.min(0), pixels.max(0)
        margin = 0.25 * (high - low) + 1
        left, top = np.maximum(low - margin, 0).astype(int)
        right, bottom = np.maximum(high + margin, 0).astype(int) + 1
        part = self.covered[top:bottom, left:right]
        return part.size == 0 or bool(part.all())

    def add(self, building: Building) -> None:
        """Add the walls of a building, without its roof."""
        wall = np.zeros_like(self.covered)
        for _, corner, right, down, normal in building.faces():
            quad = np.array([corner, right, np.add(right, down) - corner, down], float)
            seen = self.camera.to_camera(quad)
            if seen[0] @ (self.camera.rotation @ np.array(normal, float)) >= 0:
                continue
            seen = clip_near(seen)
            if len(seen) >= 3:
                pixels = np.rint(self.camera.project(seen) / COARSE).astype(np.int32)
                cv2.fillConvexPoly(wall, pixels, 1)
        # A drawn polygon exceeds its outline by up to one pixel of the mask, so erode it.
        self.covered |= cv2.erode(wall, np.ones((3, 3), np.uint8), borderValue=1)
