"""A random street: carriageway, sides, crossing streets and the camera's position."""

from dataclasses import dataclass

import numpy as np

from ..render.camera import Camera

# Camera views and their probabilities.
VIEWS = {"ahead": 0.52, "oblique": 0.14, "pavement": 0.14, "facade": 0.2}
CHARACTERS = ("old", "modern", "suburb", "green", "industrial")


@dataclass(frozen=True)
class Side:
    """One side of the street; offsets are metres from the kerb outwards."""

    sign: int  # -1 left, +1 right
    sidewalk: float  # width
    setback: float  # from the back of the sidewalk to the buildings
    verge: float  # width of the grass between kerb and sidewalk, 0 = none
    parking: float  # share of the parking spaces that are occupied
    trees: float  # distance between street trees, 0 = none
    boundary: str  # kind of barrier in front of the buildings, "" = none
    character: str

    @property
    def depth(self) -> float:
        return self.verge + self.sidewalk


@dataclass(frozen=True)
class Street:
    """A street in metres. ``blocks`` are z ranges of land; other streets cross between them."""

    half_width: float  # of the carriageway
    lanes: int  # driving lanes, both directions together
    driving_side: int  # +1: traffic drives on the right, -1: on the left
    curvature: float
    end: float  # z where a block closes the street
    blocks: tuple[tuple[float, float], ...]
    left: Side
    right: Side
    tram: bool
    season: float  # 0 summer .. 1 leafless
    camera_x: float
    lane_width: float  # of a driving lane
    view: str  # one of VIEWS
    facing: int  # the side that the camera points to, -1 or +1

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.left, self.right

    def building_line(self, side: Side) -> float:
        """Return x of the building line on a side."""
        return side.sign * (self.half_width + side.depth + side.setback)

    def on_land(self, z: float) -> bool:
        """Return whether there is a block, and no crossing street, at ``z``."""
        return any(z0 + 3 < z < z1 - 3 for z0, z1 in self.blocks)

    def visible(self, x: float, z: float) -> bool:
        """Return whether the sight line from the camera to (x, z) is between the building lines."""
        if abs(self.curvature) < 1e-5:
            return self.building_line(self.left) < x < self.building_line(self.right)
        share = np.linspace(0.1, 1, 10)
        curved = x + 0.5 * self.curvature * z * z
        across = self.camera_x + (curved - self.camera_x) * share
        across = across - 0.5 * self.curvature * (z * share) ** 2
        return bool(
            (across > self.building_line(self.left)).all()
            and (across < self.building_line(self.right)).all()
        )


def _side(rng: np.random.Generator, sign: int, character: str) -> Side:
    deep = {"old": 0.12, "modern": 0.3, "suburb": 0.95, "green": 0.9, "industrial": 0.8}[character]
    has_garden = rng.random() < deep
    kinds = ("wall", "bars", "hedge", "planks", "mesh", "rail", "wall", "")
    boundary = kinds[rng.integers(len(kinds))] if has_garden or character == "green" else ""
    wide = character == "modern" or rng.random() < 0.35
    return Side(
        sign=sign,
        sidewalk=rng.uniform(2.5, 6.0) if wide else rng.uniform(1.6, 3.4),
        setback=rng.uniform(2.0, 9.0) if has_garden else 0.0,
        verge=rng.uniform(0.8, 3.0) if rng.random() < 0.25 else 0.0,
        parking=rng.uniform(0.3, 0.98) if rng.random() < 0.6 else 0.0,
        trees=rng.uniform(5, 16) if rng.random() < 0.5 else 0.0,
        boundary=boundary,
        character=character,
    )


def _blocks(rng: np.random.Generator) -> tuple[list[tuple[float, float]], float]:
    """Return the z ranges of the blocks, and the z of the street's end."""
    end = rng.uniform(45, 80) if rng.random() < 0.25 else rng.uniform(100, 190)
    blocks, start = [], -60.0
    while start < end - 20:
        # There is no crossing beside the camera, so that a facade view shows buildings.
        length = rng.uniform(22, 90) + (max(-start - 30, 0) if start < 0 else 0)
        stop = end if start + length > end - 18 else start + length
        blocks.append((start, min(stop, end - 9)))
        start = stop + rng.uniform(7, 13)
    return blocks, end


def _camera_position(
    rng: np.random.Generator,
    view: str,
    driving_side: int,
    lanes: int,
    lane_width: float,
    half_width: float,
    sides: tuple[Side, Side],
) -> tuple[float, int]:
    """Return x of the camera, and the side of the street that it faces."""
    facing = int(rng.choice((-1, 1)))
    if view == "facade":  # from the opposite side or from the carriageway
        behind = next(side for side in sides if side.sign == -facing)
        back = half_width + behind.depth - 0.5
        return -facing * back * rng.uniform(0.1, 1.0), facing
    if view == "pavement":
        side = next(side for side in sides if side.sign == facing)
        return facing * (half_width + side.verge + side.sidewalk * rng.uniform(0.25, 0.75)), -facing
    own = 0.5 + (lanes > 2) * rng.integers(0, 2) if lanes > 1 else 0.0
    return driving_side * lane_width * own + rng.normal(0, 0.35), facing


def sample_street(rng: np.random.Generator) -> Street:
    """Sample a street."""
    first, second = rng.choice(len(CHARACTERS), 2, p=(0.3, 0.22, 0.24, 0.14, 0.10))
    if rng.random() < 0.5:
        second = first
    left, right = _side(rng, -1, CHARACTERS[first]), _side(rng, 1, CHARACTERS[second])
    lanes, lane_width = int(rng.choice((1, 2, 2, 2, 2, 3, 4))), rng.uniform(2.7, 3.6)
    tram = bool(rng.random() < 0.24)
    lanes = max(lanes, 4) if tram else lanes
    half_width = 0.5 * lanes * lane_width + 1.1 * ((left.parking > 0) + (right.parking > 0))
    blocks, end = _blocks(rng)
    driving_side = 1 if rng.random() < 0.6 else -1
    view = str(rng.choice(list(VIEWS), p=list(VIEWS.values())))
    camera_x, facing = _camera_position(
        rng, view, driving_side, lanes, lane_width, half_width, (left, right)
    )
    return Street(
        half_width=half_width,
        lanes=lanes,
        driving_side=driving_side,
        curvature=rng.uniform(-1, 1) / 160 if rng.random() < 0.4 else rng.uniform(-1, 1) / 900,
        end=end,
        blocks=tuple(blocks),
        left=left,
        right=right,
        tram=tram,
        season=rng.uniform(-0.5, 1.2),
        camera_x=float(camera_x),
        lane_width=lane_width,
        view=view,
        facing=facing,
    )


def sample_camera(rng: np.random.Generator, street: Street, height: int, width: int) -> Camera:
    """Sample a camera (in a car, in a van or hand-held) for the street's view."""
    yaw, pitch, field = {
        "ahead": (rng.normal(0, 4), rng.normal(-2, 3), rng.uniform(45, 90)),
        "oblique": (rng.uniform(-40, 40), rng.normal(-1, 3), rng.uniform(45, 85)),
        "pavement": (street.facing * rng.uniform(-5, 55), rng.normal(0, 3), rng.uniform(45, 80)),
        "facade": (street.facing * rng.normal(85, 16), rng.uniform(-3, 9), rng.uniform(42, 80)),
    }[street.view]
    tall = rng.uniform(1.1, 1.7) if rng.random() < 0.75 else rng.uniform(1.7, 2.9)
    return Camera.looking(
        height,
        width,
        field_of_view=np.deg2rad(field),
        position=(street.camera_x, tall, 0.0),
        yaw=np.deg2rad(yaw),
        pitch=np.deg2rad(pitch),
        roll=np.deg2rad(rng.normal(0, 0.9)),
        curvature=street.curvature,
    )
