"""The scene: the objects of a street, their positions, and the order in which they are painted.

The building lines enclose a nearly convex strip that contains the camera. Objects outside the strip
are therefore always behind those inside, so sorting by layer and distance suffices for the
painter's algorithm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ..classes import SIDEWALK, TERRAIN
from ..objects.barriers import Barrier, draw_barrier
from ..objects.buildings import Building
from ..objects.ground import KERB, Ground, Patch, rectangle, rounded
from ..objects.plants import Plant, draw_plant
from ..render.camera import Camera
from ..render.canvas import Canvas
from .occlusion import OcclusionBuffer
from .street import Side, Street

REACH = 9.0  # maximum extent of an object from its (x, z) in metres; buildings: 3 * REACH
BACKDROP, BUILDINGS, YARD, BOUNDARY, STREET = range(5)


class Item(Protocol):
    """What :meth:`Scene.add` accepts: a position and the world points that enclose it."""

    @property
    def x(self) -> float: ...

    @property
    def z(self) -> float: ...

    def corners(self) -> np.ndarray: ...


ItemType = TypeVar("ItemType", bound=Item)


@dataclass(frozen=True)
class SceneObject:
    """An item of the scene; ``draw(canvas, item)`` paints it."""

    layer: int
    x: float
    z: float
    draw: Callable[[Canvas, Any], None]  # accepts the type of ``item``
    item: Item
    casts_shadow: bool


class Scene:
    """The ground, the objects and the street lamps of one street."""

    def __init__(self, street: Street) -> None:
        self.street = street
        self.ground = Ground()
        self.objects: list[SceneObject] = []
        self.lamps: list[np.ndarray] = []

    def add(
        self,
        layer: int,
        draw: Callable[[Canvas, ItemType], None],
        item: ItemType,
        *,
        at: tuple[float, float] | None = None,
        casts_shadow: bool = True,
    ) -> None:
        """Add an item that ``draw(canvas, item)`` paints, at ``at`` or at its own (x, z).

        An item that a building line hides from the camera moves to the layer of the buildings.
        """
        x, z = at or (item.x, item.z)
        if layer > BUILDINGS and not self.street.visible(x, z):
            layer = BUILDINGS
        self.objects.append(SceneObject(layer, x, z, draw, item, casts_shadow))

    def shadow_casters(self, camera: Camera) -> list[SceneObject]:
        """Return the objects whose shadows can be visible."""
        x, _, z = camera.position
        return [t for t in self.objects if t.casts_shadow and np.hypot(t.x - x, t.z - z) < 110]

    def back_to_front(self, camera: Camera) -> list[SceneObject]:
        """Return the objects that can be visible, in painting order."""
        x = self.street.camera_x
        seen = camera.to_camera(np.array([(t.x, 1.5, t.z) for t in self.objects]))
        reach = np.array([REACH if t.layer > BUILDINGS else 3 * REACH for t in self.objects])
        edge = 0.5 * camera.width / camera.focal
        inside = (seen[:, 2] > -reach) & (
            abs(seen[:, 0]) < np.maximum(seen[:, 2], 0) * edge + reach
        )
        shown = [obj for obj, keep in zip(self.objects, inside, strict=True) if keep]
        shown.sort(key=lambda t: (t.layer, -np.hypot(t.x - x, t.z)))
        walls, kept = OcclusionBuffer(camera), []
        for obj in reversed(shown):
            if obj.layer <= BUILDINGS and walls.hides(obj.item.corners()):
                continue
            kept.append(obj)
            if isinstance(obj.item, Building):
                walls.add(obj.item)
        return kept[::-1]


def sample_plant(
    rng: np.random.Generator,
    street: Street,
    x: float,
    z: float,
    size: float = 1.0,
    kinds: Sequence[str] = ("leafy", "conifer", "poplar"),
) -> Plant:
    """Sample a plant; deciduous trees can be bare, depending on the season."""
    kind = kinds[
        int(
            rng.choice(
                len(kinds),
                p=np.array([6, 1.5, 1.0, 1, 1])[: len(kinds)]
                / sum([6, 1.5, 1.0, 1, 1][: len(kinds)]),
            )
        )
    ]
    if kind in ("leafy", "poplar") and rng.random() < street.season - 0.2:
        kind = "bare"
    height = size * rng.uniform(5.0, 13.0)
    spread = (
        height
        * {
            "leafy": rng.uniform(0.75, 1.15),
            "bare": rng.uniform(0.8, 1.1),
            "conifer": rng.uniform(0.4, 0.6),
            "poplar": rng.uniform(0.34, 0.5),
            "bush": rng.uniform(1.2, 2.0),
        }[kind]
    )
    if kind == "bush":
        height = size * rng.uniform(0.8, 2.2)
        spread = height * rng.uniform(1.2, 2.0)
    return Plant(kind, x, z, height, spread, int(rng.integers(64)))


def add_blocks(scene: Scene, rng: np.random.Generator) -> None:
    """Add blocks with kerbs, sidewalks and lots on both sides and at the end."""
    street, patches = scene.street, scene.ground.patches
    for side in street.sides:
        edge = side.sign * street.half_width
        far = side.sign * 90.0
        for z0, z1 in street.blocks:
            x0, x1 = sorted((edge, far))
            radius = min(rng.uniform(1.5, 4.0), (z1 - z0) / 3)
            outline = rounded(x0, x1, z0, z1, radius, side.sign)
            patches.append(Patch(outline, SIDEWALK, kerb=True))
            if side.verge:
                a, b = sorted((edge + side.sign * 0.15, edge + side.sign * side.verge))
                patches.append(
                    Patch(
                        rectangle(a, b, z0 + radius + 2, z1 - radius - 2), TERRAIN, material="grass"
                    )
                )
            a, b = sorted((edge + side.sign * side.depth, far))
            lot = rectangle(a, b, z0 + side.sidewalk, z1 - side.sidewalk)
            paved = side.setback == 0 or (
                side.character in ("modern", "industrial") and rng.random() < 0.5
            )
            kind = (
                ("court", SIDEWALK)
                if paved
                else (("grass", "grass", "soil")[rng.integers(3)], TERRAIN)
            )
            patches.append(Patch(lot, kind[1], material=kind[0]))
    end = rectangle(-90, 90, street.end, street.end + 80)
    patches.append(Patch(end, SIDEWALK, kerb=True))
    patches.append(
        Patch(rectangle(-90, 90, street.end + 3, street.end + 80), TERRAIN, material="grass")
    )


def add_greenery(scene: Scene, rng: np.random.Generator) -> None:
    """Add rows of street trees, and trees and bushes in the yards."""
    street = scene.street
    for side in street.sides:
        for z0, z1 in street.blocks:
            if side.trees:
                x = side.sign * (
                    street.half_width
                    + (0.5 * side.verge if side.verge else min(0.9, 0.35 * side.sidewalk))
                )
                size = rng.uniform(0.6, 1.6)
                for z in np.arange(z0 + 5, z1 - 4, side.trees):
                    tree = sample_plant(
                        rng, street, x, z + rng.normal(0, 0.4), size, ("leafy", "poplar")
                    )
                    if np.hypot(tree.x - street.camera_x, tree.z) > 4:
                        scene.add(STREET, draw_plant, tree)
            if side.setback < 2:
                _add_shrubs(scene, rng, side, z0, z1)
                continue
            density = 0.16 if side.character in ("green", "suburb") else 0.05
            for _ in range(rng.poisson(density * (z1 - z0))):
                x = side.sign * (
                    street.half_width + side.depth + rng.uniform(0.8, side.setback - 0.5)
                )
                bush = rng.random() < 0.55
                kinds = ("bush",) if bush else ("leafy", "conifer", "poplar")
                item = sample_plant(rng, street, x, rng.uniform(z0 + 2, z1 - 2), 0.85, kinds)
                if np.hypot(item.x - street.camera_x, item.z) > 5:
                    scene.add(YARD, draw_plant, item)


def _add_shrubs(scene: Scene, rng: np.random.Generator, side: Side, z0: float, z1: float) -> None:
    """Add shrubs in front of the facades."""
    for _ in range(rng.poisson(0.03 * (z1 - z0))):
        x = scene.street.building_line(side) - side.sign * rng.uniform(0.3, 0.7)
        shrub = sample_plant(rng, scene.street, x, rng.uniform(z0 + 2, z1 - 2), 0.6, ("bush",))
        if np.hypot(shrub.x - scene.street.camera_x, shrub.z) > 4:
            scene.add(YARD, draw_plant, shrub)


def add_boundaries(scene: Scene, rng: np.random.Generator) -> None:
    """Add walls, fences and hedges behind the sidewalk, in sections that follow the curvature."""
    street = scene.street
    for side in street.sides:
        if not side.boundary:
            continue
        for z0, z1 in street.blocks:
            x = side.sign * (street.half_width + side.depth + 0.1)
            if rng.random() < 0.15:
                continue
            kind = side.boundary
            height = {
                "wall": rng.uniform(0.7, 2.4),
                "hedge": rng.uniform(0.8, 2.0),
                "rail": rng.uniform(0.8, 1.1),
            }.get(kind, rng.uniform(0.9, 2.0))
            tone, step = int(rng.integers(1 << 20)), 6.0
            base = KERB
            if kind == "bars" and rng.random() < 0.4:
                base = KERB + 0.5
            for z in np.arange(z0 + side.sidewalk, z1 - side.sidewalk - 1, step):
                stop = min(z + step, z1 - side.sidewalk)
                if rng.random() < 0.12:
                    continue
                if base > KERB:
                    low = Barrier("wall", (x, z), (x, stop), 0.5, KERB, tone)
                    scene.add(BOUNDARY, draw_barrier, low, at=(x, (z + stop) / 2))
                piece = Barrier(kind, (x, z), (x, stop), height, base, tone)
                scene.add(BOUNDARY, draw_barrier, piece, at=(x - side.sign * 0.01, (z + stop) / 2))
            gate = Barrier(
                kind,
                (x, z0 + side.sidewalk),
                (x + side.sign * 14, z0 + side.sidewalk),
                height,
                KERB,
                tone,
            )
            scene.add(YARD, draw_barrier, gate, at=(x + side.sign * 7, z0 + side.sidewalk))


def add_guard_rail(scene: Scene, rng: np.random.Generator) -> None:
    """Add a guard rail at the kerb."""
    street = scene.street
    side = street.sides[int(rng.integers(2))]
    z0, z1 = street.blocks[int(rng.integers(min(2, len(street.blocks))))]
    start = max(z0 + 4, rng.uniform(2, 25))
    tone = int(rng.integers(1 << 20))
    kind = ("bars", "rail")[int(rng.integers(2))]
    x = side.sign * (street.half_width + 0.25)
    for z in np.arange(start, min(start + rng.uniform(6, 24), z1 - 5), 3.0):
        piece = Barrier(kind, (x, z), (x, z + 3.0), 1.05, KERB, tone)
        scene.add(STREET, draw_barrier, piece, at=(x, z + 1.5))


def sidewalk_x(rng: np.random.Generator, street: Street, side: Side) -> float:
    """Sample an x on a side's sidewalk."""
    return side.sign * (
        street.half_width + side.verge + rng.uniform(0.45, max(side.sidewalk - 0.35, 0.6))
    )
