"""Cast shadows by shadow mapping.

A shadow map is an orthographic view from the sun. It stores the height towards the sun of the first
object in each of its pixels. An image pixel is in shadow if the map stores a greater height than
that of the pixel's own point.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from .. import classes
from ..objects.buildings import Building
from ..objects.plants import Plant, silhouette
from ..render.camera import Camera
from ..render.canvas import SHIFT, Canvas, to_fixed_point
from ..render.light import Light
from ..scene.layout import Item, SceneObject
from ..types import PixelBox

STEP = 2  # every second pixel is looked up; this also sets the width of the penumbra
REACHES = (13.0, 75.0)  # range of the near and the far map ahead of the camera, in metres
SIZE = 1024  # width and height of a map in pixels
# Bias in metres for each label: an object is painted at one depth and must not shadow itself.
BIAS = {
    classes.BUILDING: 0.25,
    classes.WALL: 0.4,
    classes.FENCE: 0.3,
    classes.POLE: 0.4,
    classes.TRAFFIC_LIGHT: 0.4,
    classes.TRAFFIC_SIGN: 0.3,
    classes.VEGETATION: 3.0,
    classes.PERSON: 0.6,
    classes.RIDER: 0.8,
    classes.CAR: 1.6,
    classes.TRUCK: 3.0,
    classes.BUS: 4.0,
    classes.TRAIN: 6.0,
    classes.MOTORCYCLE: 0.8,
    classes.BICYCLE: 0.8,
}


class ShadowMap:
    """Height towards the sun (SIZE, SIZE) float32 of the first object; -inf where there is none."""

    def __init__(self, light: Light, camera: Camera, reach: float) -> None:
        sun = light.sun
        right = np.cross([0.0, 1.0, 0.0], sun)
        right /= np.linalg.norm(right)
        self.frame = np.stack([right, np.cross(sun, right), sun])
        self.camera = camera
        edge = 0.5 * camera.width / camera.focal
        corners = np.array([(0, 0, 0), (-edge, 0, 1), (edge, 0, 1)]) * reach
        ground = corners @ camera.rotation + camera.position
        seen = (np.concatenate([ground * (1, 0, 1), ground * (1, 0, 1) + (0, 9, 0)])) @ self.frame.T
        low, high = seen[:, :2].min(0) - 2, seen[:, :2].max(0) + 2
        self.scale, self.low = SIZE / (high - low), low
        self.height = np.full((SIZE, SIZE), -np.inf, np.float32)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Map world points (N, 3) of the straight street to column, row and height (N, 3)."""
        seen = self.camera.apply_curvature(points) @ self.frame.T
        seen[:, :2] = (seen[:, :2] - self.low) * self.scale
        return seen

    def _box(self, seen: np.ndarray) -> tuple[int, int, int, int] | None:
        left, top = np.maximum(np.floor(seen[:, :2].min(0)), 0).astype(int)
        right, bottom = np.minimum(np.ceil(seen[:, :2].max(0)) + 1, SIZE).astype(int)
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _raise(self, box: PixelBox, mask: np.ndarray, plane: np.ndarray | np.float32) -> None:
        left, top, right, bottom = box
        view = self.height[top:bottom, left:right]
        np.maximum(view, plane, out=view, where=mask > 0)

    def add(self, item: Item) -> None:
        """Render an object into the map."""
        if isinstance(item, Building):
            for face in _solid(item):
                self._add_flat(face)
        elif isinstance(item, Plant):
            self._add_plant(item)
        else:
            self._add_hull(item.corners())

    def _add_flat(self, points: np.ndarray) -> None:
        """Render a convex flat face, world points (N, 3)."""
        seen = self.project(points)
        box = self._box(seen)
        edges = seen[1:3] - seen[0]
        turn = edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0]
        if box is None or abs(turn) < 1e-6:
            return
        slope = np.linalg.solve(edges[:, :2], edges[:, 2])
        left, top, right, bottom = box
        plane = seen[0, 2] + slope[0] * (np.arange(left, right) - seen[0, 0])
        plane = plane + slope[1] * (np.arange(top, bottom)[:, None] - seen[0, 1])
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillConvexPoly(mask, to_fixed_point(seen[:, :2] - (left, top)), 1, cv2.LINE_8, SHIFT)
        self._raise(box, mask, plane.astype(np.float32))

    def _add_hull(self, points: np.ndarray) -> None:
        """Render the convex hull of world points (N, 3) at their median height."""
        seen = self.project(points)
        box = self._box(seen)
        if box is None:
            return
        outline = cv2.convexHull(seen[:, :2].astype(np.float32))[:, 0]
        mask = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
        cv2.fillConvexPoly(mask, to_fixed_point(outline - box[:2]), 1, cv2.LINE_8, SHIFT)
        self._raise(box, mask, np.float32(np.median(seen[:, 2])))

    def _add_plant(self, plant: Plant) -> None:
        """Render trunk and crown, with the gaps between the leaves."""
        tall = plant.height * np.array([0.0, 1.0])
        axis = np.stack([np.full(2, plant.x), tall, np.full(2, plant.z)], 1)
        (x, foot, _), (_, top, height) = self.project(axis)
        wide = plant.spread * self.scale[0]
        # A crown is as deep as it is wide, so a high sun still projects this much of it.
        rise = max(abs(top - foot), 0.7 * plant.spread * self.scale[1])
        middle, height = 0.5 * (foot + top), height - 0.4 * plant.height * self.frame[2, 1]
        corners = np.array(
            [(x - wide / 2, middle - rise / 2, 0), (x + wide / 2, middle + rise / 2, 0)]
        )
        box = self._box(corners)
        if box is None:
            return
        shape = silhouette(plant, int(rise))
        zoom = np.array([wide / shape.shape[1], rise / shape.shape[0]])
        start = corners[0, :2] - box[:2]
        warp = np.array([[zoom[0], 0, start[0]], [0, -zoom[1], start[1] + rise]])
        size = (box[2] - box[0], box[3] - box[1])
        self._raise(
            box, cv2.compare(cv2.warpAffine(shape, warp, size), 90, cv2.CMP_GT), np.float32(height)
        )

    def lookup(self, world: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the stored height at each world point, and the point's own height."""
        axes = self.frame.astype(np.float32)
        column, row, height = (
            sum(a * w for a, w in zip(axis, world, strict=True)) for axis in axes
        )
        column = (column - np.float32(self.low[0])) * np.float32(self.scale[0])
        row = (row - np.float32(self.low[1])) * np.float32(self.scale[1])
        return cv2.remap(self.height, column, row, cv2.INTER_NEAREST, borderValue=-np.inf), height


def _solid(building: Building) -> Iterator[np.ndarray]:
    """Yield the flat faces of a building that can block the sun."""
    x0, x1, z0, z1 = building.x0, building.x1, building.z0, building.z1
    top = building.corners()[:, 1].max()
    steps = np.array([(x0, z0), (x1, z0), (x1, z1), (x0, z1)])
    yield np.insert(steps, 1, top, axis=1)
    for (xa, za), (xb, zb) in zip(steps, np.roll(steps, -1, 0), strict=True):
        yield np.array([(xa, 0, za), (xb, 0, zb), (xb, top, zb), (xa, top, za)])


def shadow_mask(canvas: Canvas, objects: list[SceneObject]) -> np.ndarray:
    """Return the share of sunlight that ``objects`` block, (H, W) float32 from 0 to 1."""
    camera = canvas.camera
    near, far = (ShadowMap(canvas.light, camera, reach) for reach in REACHES)
    for view in (near, far):
        for obj in objects:
            view.add(obj.item)
    metres = 1 / np.maximum(canvas.inverse_depth(STEP), np.float32(1 / 400))
    rays = [camera.ray(axis, step=STEP) for axis in range(3)]
    world = [np.float32(p) + ray * metres for p, ray in zip(camera.position, rays, strict=True)]
    first, height = far.lookup(world)
    cv2.copyTo(near.lookup(world)[0], (metres < REACHES[0]).view(np.uint8), first)
    margin = np.full(256, 0.15, np.float32)
    margin[list(BIAS)] = list(BIAS.values())
    height += np.take(margin, canvas.label_image()[::STEP, ::STEP])
    dark = cv2.blur(cv2.compare(first, height, cv2.CMP_GT), (3, 3))
    return cv2.resize(dark, (camera.width, camera.height)).astype(np.float32) * np.float32(1 / 255)
