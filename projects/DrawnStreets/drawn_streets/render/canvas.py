"""The canvas: a colour buffer and a surface buffer that are painted together, back to front.

``paint`` (H, W, 4) uint8 is RGBE: red, green, blue and a code of the light source. Codes from 0 to
``SUNLIT`` are the share of direct sunlight, which a cast shadow removes. Codes from ``EMISSIVE`` to
255 are emission (lamps, lit windows). ``ids`` (H, W) uint16 is the number of the surface that was
painted last. Each surface has one label and one plane, so a table look-up on ``ids`` gives the
label map and the depth map. Labels are exact to the pixel, because the same polygon fills
both buffers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ..domains import Palette
from ..types import Vector
from .camera import NEAR, Camera, clip_near
from .light import Light

SUNLIT, EMISSIVE = 100, 128
SHIFT = 4  # fractional bits of OpenCV's fixed-point vertex coordinates
Plane: TypeAlias = tuple[float, float, float]


def to_fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Convert pixels (N, 2) to fixed-point vertices for OpenCV's ``shift=SHIFT``."""
    return np.rint(pixels * (1 << SHIFT)).astype(np.int32)


@dataclass
class Canvas:
    """The buffers, camera and light that every drawing function receives.

    ``colour_rng`` decides colours and never shapes. ``snow`` (0 to 1) is the whiteness of upward
    faces. ``lit`` is the share of lamps and windows that emit light.
    """

    camera: Camera
    light: Light
    colour_rng: np.random.Generator
    palette: Palette
    snow: float = 0.0
    lit: float = 0.0
    paint: np.ndarray = field(init=False)
    ids: np.ndarray = field(init=False)
    labels: list[int] = field(init=False)
    planes: list[Plane] = field(init=False)

    def __post_init__(self) -> None:
        self.paint = np.zeros((self.camera.height, self.camera.width, 4), np.uint8)
        self.ids = np.zeros((self.camera.height, self.camera.width), np.uint16)
        self.labels, self.planes = [255], [(0.0, 0.0, 0.0)]

    def add_surface(self, label: int, plane: Plane | float) -> int:
        """Register a surface and return its number.

        A float ``plane`` is the depth in metres of an upright surface that faces the camera.
        """
        if isinstance(plane, float):
            plane = (0.0, 0.0, 1.0 / max(plane, NEAR))
        self.labels.append(label)
        self.planes.append(plane)
        return len(self.labels) - 1

    def label_image(self) -> np.ndarray:
        """Return the label map, (H, W) uint8 train ids."""
        return np.take(np.array(self.labels, np.uint8), self.ids)

    def inverse_depth(self, step: int = 1) -> np.ndarray:
        """Return 1 / depth (1 / m) of every ``step``-th pixel, float32; 0 in the sky."""
        planes = np.array(self.planes, np.float32)
        rows = np.arange(0, self.camera.height, step, dtype=np.float32)[:, None]
        columns = np.arange(0, self.camera.width, step, dtype=np.float32)
        ids = self.ids[::step, ::step]
        across, down, depth = (np.take(planes[:, i], ids) for i in range(3))
        depth += across * columns
        depth += down * rows
        return np.clip(depth, 0, 1 / NEAR, out=depth)

    def shade(self, colours: ArrayLike, normals: np.ndarray) -> np.ndarray:
        """Shade colours (N, 3), or (N, 4) with emission from 0 to 255: RGBE (N, 4)."""
        colours = np.atleast_2d(np.asarray(colours, float))
        emission = colours[:, 3:] if colours.shape[1] == 4 else np.zeros((len(colours), 1))
        base = colours[:, :3]
        if self.snow:
            cover = self.snow * np.clip(2.5 * normals[:, 1:2] - 0.6, 0, 1)
            base = base + (np.array([232, 236, 242]) - base) * cover
        factor = np.where(emission > 0, 1.0, self.light.shade(normals))
        source = np.where(emission > 0, EMISSIVE + emission / 2, SUNLIT * self.light.share(normals))
        return np.minimum(np.hstack([base * factor, source]), 255)

    def emission(self) -> np.ndarray:
        """Return the emission of each pixel, (H, W) float32 from 0 to 1."""
        over = cv2.subtract(self.paint[..., 3], EMISSIVE)
        return over.astype(np.float32) * np.float32(1 / (255 - EMISSIVE))

    def sunlit(self) -> np.ndarray:
        """Return the share of direct sunlight before cast shadows, (H, W) float32 from 0 to 1."""
        share = np.zeros(256, np.float32)
        share[: SUNLIT + 1] = np.linspace(0, 1, SUNLIT + 1)
        return np.take(share, self.paint[..., 3])

    def draw_polygon(self, points: np.ndarray, colour: Vector, surface: int | None = None) -> None:
        """Fill a convex polygon of camera points; without ``surface``, in colour only."""
        points = clip_near(points)
        if len(points) >= 3:
            self.fill_polygon(self.camera.project(points), colour, surface)

    def fill_polygon(
        self, pixels: np.ndarray, colour: Vector | None, surface: int | None = None
    ) -> None:
        """Fill a convex polygon of pixels (N, 2); only the colour is antialiased."""
        corners = to_fixed_point(pixels)
        if colour is not None:
            cv2.fillConvexPoly(self.paint, corners, tuple(map(float, colour)), cv2.LINE_AA, SHIFT)
        if surface is not None:
            cv2.fillConvexPoly(self.ids, corners, surface, cv2.LINE_8, SHIFT)

    def draw_line(
        self, pixels: np.ndarray, colour: Vector, thickness: float, closed: bool = True
    ) -> None:
        """Draw a line through pixels (N, 2), at least one pixel thick, in colour only."""
        size = int(np.clip(round(thickness), 1, 60))
        cv2.polylines(
            self.paint,
            [to_fixed_point(pixels)],
            closed,
            tuple(map(float, colour)),
            size,
            cv2.LINE_AA,
            SHIFT,
        )

    def clipped_box(self, pixels: np.ndarray) -> tuple[int, int, int, int] | None:
        """Return the bounding box of pixels (N, 2) inside the image, or None."""
        low, high = np.floor(pixels.min(0)), np.ceil(pixels.max(0)) + 1
        left, top = int(max(low[0], 0)), int(max(low[1], 0))
        right, bottom = int(min(high[0], self.camera.width)), int(min(high[1], self.camera.height))
        return (left, top, right, bottom) if left < right and top < bottom else None

    def density(self, corner: Vector, right: Vector, down: Vector) -> float | None:
        """Return a parallelogram's pixels per metre in the image; None if it is not visible."""
        origin, across, below = self.camera.to_camera(np.array([corner, right, down], float))
        outline = clip_near(np.array([origin, across, across + below - origin, below]), 2.0)
        if len(outline) < 3:
            return None
        pixels = self.camera.project(outline)
        if self.clipped_box(pixels) is None:
            return None
        fan = np.cross(outline[1:-1] - outline[0], outline[2:] - outline[0]).sum(0)
        area = cv2.contourArea(pixels.astype(np.float32)) / max(
            0.5 * float(np.linalg.norm(fan)), 1e-3
        )
        return float(np.sqrt(area))

    def draw_texture(
        self,
        corner: Vector,
        right: Vector,
        down: Vector,
        texture: np.ndarray,
        surface: int,
        *,
        normal: Vector | None = None,
        cover: np.ndarray | None = None,
    ) -> None:
        """Paint a parallelogram with a perspective-correct RGBE texture.

        Parameters
        ----------
        corner, right, down : array_like
            World points of the texture's top left, top right and bottom left.
        texture : ndarray
            (h, w, 4) uint8.
        surface : int
            Number of the surface, which covers the whole parallelogram.
        normal : array_like, optional
            Outward normal for shading. Without it the texture is used as it is.
        cover : ndarray, optional
            Alpha (h, w) uint8 of the colours, as for a fence that one can see through.
        """
        origin, right, down = self.camera.to_camera(np.array([corner, right, down], float))
        across, below = right - origin, down - origin
        outline = clip_near(np.array([origin, right, right + below, down]))
        if len(outline) < 3:
            return
        pixels = self.camera.project(outline)
        box = self.clipped_box(pixels)
        if box is None:
            return
        left, top, far, low = box
        height, width = texture.shape[:2]
        lens = np.array(
            [
                [self.camera.focal, 0, 0.5 * self.camera.width - 0.5 - left],
                [0, self.camera.focal, 0.5 * self.camera.height - 0.5 - top],
                [0, 0, 1],
            ]
        )
        warp = lens @ np.stack([across / width, below / height, origin], 1)
        size = (far - left, low - top)
        patch = cv2.warpPerspective(texture, warp, size, borderMode=cv2.BORDER_REPLICATE)
        if normal is not None:
            normals = np.asarray(normal, float)[None]
            factor = self.shade(np.full((1, 3), 255), normals)[0, :3] / 255
            patch = cv2.multiply(patch, (*factor, 1.0))
            source = np.minimum(EMISSIVE + np.arange(256) / 2, 255)
            source[0] = SUNLIT * self.light.share(normals)[0, 0]
            patch[..., 3] = np.take(source.astype(np.uint8), patch[..., 3])
        mask = np.zeros(patch.shape[:2], np.uint8)
        cv2.fillConvexPoly(mask, to_fixed_point(pixels - (left, top)), 255, cv2.LINE_8, SHIFT)
        region = self.ids[top:low, left:far]
        region[mask > 0] = surface
        view = self.paint[top:low, left:far]
        if cover is None:
            cv2.copyTo(patch, mask, view)
        else:
            alpha = cv2.warpPerspective(cover, warp, size)
            self._blend(view, patch, cv2.min(alpha, mask))

    def _blend(self, view: np.ndarray, patch: np.ndarray, alpha: np.ndarray) -> None:
        weight = alpha.astype(np.float32) * (1 / 255)
        view[:] = cv2.blendLinear(
            np.ascontiguousarray(patch), np.ascontiguousarray(view), weight, 1 - weight
        )

    def draw_sprite(
        self,
        base: Vector,
        size: tuple[float, float],
        layers: Sequence[np.ndarray],
        ramp: np.ndarray,
        label: int,
        *,
        flip: bool = False,
    ) -> None:
        """Paint an upright sprite that faces the camera.

        Parameters
        ----------
        base : array_like
            World point of the sprite's bottom centre.
        size : tuple of float
            Width and height in metres.
        layers : sequence of ndarray
            Mip levels (h, w, 3) uint8: brightness, alpha of the colour, alpha of the label.
        ramp : ndarray
            (256, 4) uint8, the RGBE colour of each brightness.
        label : int
            Train id of the sprite's surface.
        flip : bool
            Whether to mirror the sprite left to right.
        """
        foot = self.camera.to_camera(np.asarray(base, float))
        if foot[2] < 1.0:
            return
        scale = self.camera.focal / foot[2]
        bottom = self.camera.project(foot)
        wide, tall = size[0] * scale, size[1] * scale
        box = self.clipped_box(bottom + np.array([(-wide / 2, -tall), (wide / 2, 0)]))
        if box is None or tall < 2:
            return
        image = next((m for m in reversed(layers) if m.shape[0] >= tall), layers[0])
        left, top, right, low = box
        zoom_x, zoom_y = wide / image.shape[1], tall / image.shape[0]
        start = (bottom[0] - wide / 2 - left, bottom[1] - tall - top)
        if flip:
            zoom_x, start = -zoom_x, (start[0] + wide, start[1])
        warp = np.array([[zoom_x, 0, start[0]], [0, zoom_y, start[1]]])
        patch = cv2.warpAffine(image, warp, (right - left, low - top))
        self._blend(self.paint[top:low, left:right], np.take(ramp, patch[..., 0], 0), patch[..., 1])
        self.ids[top:low, left:right][patch[..., 2] > 127] = self.add_surface(label, float(foot[2]))

    def grain(self, surface: int, pixels: np.ndarray, texture: np.ndarray) -> None:
        """Multiply a surface's pixels in the bounding box of ``pixels`` by a texture (128 = 1)."""
        box = self.clipped_box(pixels)
        if box is None:
            return
        left, top, right, bottom = box
        mask = (self.ids[top:bottom, left:right] == surface).view(np.uint8)
        view = self.paint[top:bottom, left:right]
        rows = (np.arange(top, bottom) + 97 * surface) % texture.shape[0]
        columns = (np.arange(left, right) + 61 * surface) % texture.shape[1]
        modulate(view, texture[rows][:, columns], mask)


def modulate(view: np.ndarray, factor: np.ndarray, mask: np.ndarray | None = None) -> None:
    """Multiply the colours of a view in place by factor / 128, (h, w) uint8."""
    factor = cv2.merge([factor, factor, factor, np.full_like(factor, 128)])
    cv2.copyTo(cv2.multiply(view, factor, scale=1 / 128), mask, view)
