"""The plan of one street, drawn at random: roadway, sides, crossings, and the camera's place."""

from dataclasses import dataclass

import numpy as np

from .camera import Camera

CHARACTERS = ("old", "modern", "suburb", "green", "industrial")


@dataclass(frozen=True)
class Side:
    """One side of the street; offsets are metres from the kerb outwards."""

    sign: int  # -1 left, +1 right
    sidewalk: float
    setback: float  # from the sidewalk's back to the buildings
    verge: float  # grass between kerb and sidewalk, 0 = none
    parking: float  # share of the kerb that is taken by parked cars
    trees: float  # metres between street trees, 0 = none
    boundary: str  # barrier in front of the buildings, "" = none
    character: str

    @property
    def inner(self) -> float:
        return self.verge + self.sidewalk


@dataclass(frozen=True)
class Street:
    """Lengths in metres. ``blocks`` are z ranges of land; other streets cross between them."""

    half: float  # half the carriageway's width
    lanes: int  # driving lanes, both directions together
    drive: int  # +1: we drive on the right, -1: on the left
    bend: float
    end: float  # z where a block closes the street
    blocks: tuple[tuple[float, float], ...]
    left: Side
    right: Side
    tram: bool
    season: float  # 0 summer .. 1 leafless
    camera_x: float
    lane: float  # width of a driving lane

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.left, self.right

    def line(self, side: Side) -> float:
        """x of the building line on a side."""
        return side.sign * (self.half + side.inner + side.setback)

    def on_land(self, z: float) -> bool:
        """Whether a block lies beside the street at ``z``, and not a crossing."""
        return any(z0 + 3 < z < z1 - 3 for z0, z1 in self.blocks)

    def visible(self, x: float, z: float) -> bool:
        """Whether the sight line from the camera to (x, z) stays between the building lines."""
        if abs(self.bend) < 1e-5:
            return self.line(self.left) < x < self.line(self.right)
        share = np.linspace(0.1, 1, 10)
        bent = x + 0.5 * self.bend * z * z
        across = self.camera_x + (bent - self.camera_x) * share
        across = across - 0.5 * self.bend * (z * share) ** 2
        return bool(
            (across > self.line(self.left)).all() and (across < self.line(self.right)).all()
        )


def _side(rng: np.random.Generator, sign: int, character: str) -> Side:
    deep = {"old": 0.15, "modern": 0.4, "suburb": 0.95, "green": 0.9, "industrial": 0.8}[character]
    has_garden = rng.random() < deep
    kinds = ("wall", "bars", "hedge", "planks", "mesh", "rail", "wall", "")
    boundary = kinds[rng.integers(len(kinds))] if has_garden or character == "green" else ""
    return Side(
        sign=sign,
        sidewalk=rng.uniform(1.6, 3.0) if character != "modern" else rng.uniform(2.5, 5.0),
        setback=rng.uniform(2.5, 8.0) if has_garden else 0.0,
        verge=rng.uniform(1.0, 2.6) if rng.random() < 0.3 else 0.0,
        parking=rng.uniform(0.3, 0.95) if rng.random() < 0.6 else 0.0,
        trees=rng.uniform(7, 18) if rng.random() < 0.5 else 0.0,
        boundary=boundary,
        character=character,
    )


def draw_plan(rng: np.random.Generator) -> Street:
    """A street for one picture."""
    first, second = rng.choice(len(CHARACTERS), 2, p=(0.3, 0.22, 0.24, 0.14, 0.10))
    if rng.random() < 0.5:
        second = first
    left, right = _side(rng, -1, CHARACTERS[first]), _side(rng, 1, CHARACTERS[second])
    lanes, lane = int(rng.choice((2, 2, 2, 3, 4))), rng.uniform(2.9, 3.5)
    tram = bool(rng.random() < 0.22)
    lanes = max(lanes, 4) if tram else lanes
    half = 0.5 * lanes * lane + 1.1 * ((left.parking > 0) + (right.parking > 0))
    blocks, start, end = (
        [],
        -14.0,
        rng.uniform(45, 80) if rng.random() < 0.22 else rng.uniform(110, 190),
    )
    while start < end - 20:
        length = rng.uniform(22, 90)
        stop = end if start + length > end - 18 else start + length
        blocks.append((start, min(stop, end - 9)))
        start = stop + rng.uniform(7, 11)
    bend = rng.uniform(-1, 1) / 160 if rng.random() < 0.4 else rng.uniform(-1, 1) / 900
    drive = 1 if rng.random() < 0.6 else -1
    camera_x = drive * lane * (0.5 + (lanes > 2) * rng.integers(0, 2)) + rng.normal(0, 0.35)
    if rng.random() < 0.1:
        camera_x = rng.choice((-1, 1)) * (half + rng.uniform(0.5, 1.5))
    return Street(
        half,
        lanes,
        drive,
        bend,
        end,
        tuple(blocks),
        left,
        right,
        tram,
        rng.uniform(-0.4, 1.2),
        float(camera_x),
        lane,
    )


def draw_camera(rng: np.random.Generator, street: Street, height: int, width: int) -> Camera:
    """Mostly a car's camera looking ahead; now and then one that looks across the street."""
    kind = rng.random()
    yaw = (
        rng.normal(0, 3.5)
        if kind < 0.68
        else rng.uniform(-35, 35)
        if kind < 0.9
        else rng.uniform(-68, 68)
    )
    return Camera.looking(
        height,
        width,
        field_of_view=np.deg2rad(rng.uniform(48, 82)),
        position=(street.camera_x, rng.uniform(1.2, 2.1), 0.0),
        yaw=np.deg2rad(yaw),
        pitch=np.deg2rad(rng.normal(0.2, 2.0)),
        roll=np.deg2rad(rng.normal(0, 0.8)),
        bend=street.bend,
    )
