"""Pedestrians, cyclists and motorcyclists, built from capsules (in metres)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from ..classes import BICYCLE, MOTORCYCLE, PERSON, RIDER
from ..domains import Colour
from ..render import textures
from ..render.camera import NEAR
from ..render.canvas import Canvas
from ..render.mesh import draw_hull, draw_rods, to_world
from ..types import Vector
from .ground import KERB, draw_contact_shadow

Joints: TypeAlias = dict[str, np.ndarray]
Clothes: TypeAlias = dict[str, np.ndarray]
#: Start, end, radius (one, or one at each end) and colour of a rod.
Rod: TypeAlias = tuple[Vector, Vector, Vector | float, Vector]

SKIN = ((226, 184, 154), (206, 158, 126), (160, 112, 82), (110, 74, 54), (236, 200, 172))
HAIR = ((36, 28, 24), (70, 48, 34), (120, 88, 56), (24, 22, 22), (150, 142, 134))


@dataclass(frozen=True)
class Person:
    """A pedestrian at (x, z); ``phase`` (radians) of the step, ``stride`` 0 = standing."""

    x: float
    z: float
    heading: float
    height: float
    phase: float
    stride: float
    arms: float = 0.0
    coat: bool = False
    bag: bool = False
    base: float = KERB

    def corners(self) -> np.ndarray:
        spread = np.array([(-0.2, 0), (0.2, 0), (-0.22, 0.8), (0.22, 0.8), (0, 1.0)])
        return np.array([[self.x + a, self.base + h * self.height, self.z] for a, h in spread])


@dataclass(frozen=True)
class Cycle:
    """A bicycle or motorcycle at (x, z), with or without its rider."""

    motor: bool
    x: float
    z: float
    heading: float
    rider: bool
    phase: float = 0.0
    base: float = 0.0

    def corners(self) -> np.ndarray:
        top = 1.75 if self.rider else 1.0
        points = np.array([(0, 0, -0.9), (0, 0, 0.9), (-0.25, 1.0, 0), (0.25, 1.0, 0), (0, top, 0)])
        return to_world(points, (self.x, self.base, self.z), self.heading)


def _clothes(canvas: Canvas) -> Clothes:
    rng, palette = canvas.colour_rng, canvas.palette

    def choose(colours: Sequence[Colour]) -> np.ndarray:
        return np.array(colours[int(rng.integers(len(colours)))], float)

    return {
        "top": choose(palette.clothes) * rng.uniform(0.8, 1.15),
        "legs": choose(palette.clothes[:6]) * rng.uniform(0.7, 1.1),
        "skin": choose(SKIN),
        "hair": choose(HAIR),
        "shoes": choose(((30, 28, 26), (70, 52, 40), (210, 208, 204))),
        "bag": choose(palette.clothes),
    }


def _walking(person: Person) -> Joints:
    """Return the joints of a walking body of 1.75 m; index 0 is the left side (x < 0)."""
    joints = {"neck": np.array([0, 1.47, 0.02]), "head": np.array([0, 1.62, 0.04])}
    for side, sign in ((0, -1), (1, 1)):
        swing = person.stride * np.sin(person.phase + np.pi * side)
        bend = 0.1 + person.stride * max(np.cos(person.phase + np.pi * side), 0)
        hip = np.array([sign * 0.09, 0.92, 0])
        knee = hip + 0.44 * np.array([0, -np.cos(swing), np.sin(swing)])
        ankle = knee + 0.42 * np.array([0, -np.cos(swing - bend), np.sin(swing - bend)])
        shoulder = np.array([sign * 0.18, 1.40, 0])
        reach = -0.8 * swing + person.arms * side
        elbow = shoulder + 0.29 * np.array([sign * 0.12, -np.cos(reach), np.sin(reach)])
        wrist = elbow + 0.26 * np.array(
            [-sign * 0.05, -np.cos(reach + 0.35 + person.arms), np.sin(reach + 0.35 + person.arms)]
        )
        joints |= {
            f"hip{side}": hip,
            f"knee{side}": knee,
            f"ankle{side}": ankle,
            f"shoulder{side}": shoulder,
            f"elbow{side}": elbow,
            f"wrist{side}": wrist,
            f"toe{side}": ankle + np.array([0, -0.05, 0.14]),
        }
    lowest = min(joints["ankle0"][1], joints["ankle1"][1]) - 0.07
    return {name: joint - (0, lowest, 0) for name, joint in joints.items()}


def _riding(motor: bool, phase: float) -> Joints:
    """Return the joints of a rider, feet on the pedals or footrests, hands on the handlebar."""
    hips, lean = (0.86, 0.18) if motor else (0.98, 0.30)
    joints = {
        "neck": np.array([0, hips + 0.54, lean]),
        "head": np.array([0, hips + 0.70, lean + 0.08]),
    }
    for side, sign in ((0, -1), (1, 1)):
        turn = phase + np.pi * side
        foot = (
            np.array([sign * 0.12, 0.36, 0.02])
            if motor
            else np.array([sign * 0.11, 0.30 + 0.17 * np.sin(turn), 0.02 + 0.17 * np.cos(turn)])
        )
        hip = np.array([sign * 0.09, hips, -0.2])
        knee = 0.5 * (hip + foot) + (sign * 0.05, 0.08, 0.24)
        shoulder = np.array([sign * 0.18, hips + 0.46, lean - 0.03])
        wrist = np.array([sign * 0.28, 1.04, 0.42])
        elbow = 0.5 * (shoulder + wrist) + (sign * 0.05, -0.08, -0.03)
        joints |= {
            f"hip{side}": hip,
            f"knee{side}": knee,
            f"ankle{side}": foot,
            f"shoulder{side}": shoulder,
            f"elbow{side}": elbow,
            f"wrist{side}": wrist,
            f"toe{side}": foot + np.array([0, -0.03, 0.13]),
        }
    return joints


def _limbs(joints: Joints, clothes: Clothes, side: int) -> tuple[list[Rod], list[Rod]]:
    """Return the rods of one leg and of one arm."""
    hip, knee, ankle, toe, shoulder, elbow, wrist = (
        joints[f"{name}{side}"]
        for name in ("hip", "knee", "ankle", "toe", "shoulder", "elbow", "wrist")
    )
    legs, top = clothes["legs"], clothes["top"]
    leg: list[Rod] = [
        (hip, knee, (0.085, 0.062), legs),
        (knee, ankle, (0.062, 0.045), legs * 0.94),
        (ankle, toe, (0.05, 0.04), clothes["shoes"]),
    ]
    arm: list[Rod] = [
        (shoulder, elbow, (0.06, 0.048), top),
        (elbow, wrist, (0.046, 0.036), top * 0.94),
        (wrist, wrist, (0.042, 0.042), clothes["skin"]),
    ]
    return leg, arm


def _draw_body(
    canvas: Canvas,
    joints: Joints,
    clothes: Clothes,
    surface: int,
    item: Person | Cycle,
    scale: float = 1.0,
    *,
    coat: bool = False,
    bag: bool = False,
) -> None:
    """Paint far limbs, torso, head and near limbs; ``joints`` are in object coordinates."""
    position = np.array([item.x, item.base, item.z])
    place = partial(to_world, position=position, heading=item.heading, scale=scale)
    shoulders = canvas.camera.to_camera(place(np.array([joints["shoulder0"], joints["shoulder1"]])))
    far, near = (0, 1) if shoulders[0, 2] > shoulders[1, 2] else (1, 0)
    chest = 0.5 * (joints["shoulder0"] + joints["shoulder1"])
    waist = 0.5 * (joints["hip0"] + joints["hip1"])
    back = np.array([0, 0, -0.16])
    depth = canvas.camera.to_camera(place(np.array([chest, chest + back])))[:, 2]
    facing = depth[1] > depth[0]  # the face is visible
    pack = [(chest + back, chest + back + 0.7 * (waist - chest), (0.15, 0.16), clothes["bag"])]

    def rods(parts: list[Rod]) -> None:
        starts, ends, radii, colours = map(np.array, zip(*parts, strict=True))
        draw_rods(canvas, place(starts), place(ends), radii * scale, colours, surface)

    (far_leg, far_arm), (near_leg, near_arm) = (_limbs(joints, clothes, s) for s in (far, near))
    rods((pack if bag and facing else []) + far_arm + far_leg + near_leg)
    trunk = [joints[name] for name in ("shoulder0", "shoulder1", "hip0", "hip1")]
    if coat:
        trunk += [0.5 * (joints[f"hip{s}"] + joints[f"knee{s}"]) for s in (0, 1)]
    draw_hull(canvas, place(np.array(trunk)), 0.085 * scale, clothes["top"], surface)
    head, up, out = joints["head"], np.array([0, 0.025, 0]), np.array([0, 0, 0.03])
    face = (head - up + out, head + up + out, (0.098, 0.095), clothes["skin"])
    crown = (head + 0.3 * up - out, head + 2 * up - out, (0.106, 0.104), clothes["hair"])
    rods(
        [(chest, waist, (0.11, 0.1), clothes["top"] * 1.03)]
        + [(joints["neck"], head, (0.055, 0.055), clothes["skin"] * 0.85)]
        + ([crown, face] if facing else [face, crown])
        + near_arm
        + (pack if bag and not facing else [])
    )


def draw_person(canvas: Canvas, person: Person) -> None:
    """Paint a pedestrian."""
    clothes = _clothes(canvas)
    position = np.array([person.x, person.base, person.z])
    depth = float(canvas.camera.to_camera(position)[2])
    if depth < 4 * NEAR:
        return
    if depth < 25:
        spread = np.array([(-0.22, 0, -0.25), (0.22, 0, -0.25), (0.22, 0, 0.25), (-0.22, 0, 0.25)])
        draw_contact_shadow(canvas, to_world(spread, position, person.heading), 0.35)
    surface = canvas.add_surface(PERSON, depth)
    scale = person.height / 1.75
    _draw_body(
        canvas, _walking(person), clothes, surface, person, scale, coat=person.coat, bag=person.bag
    )
    _cloth_grain(canvas, surface, position)


def _cloth_grain(canvas: Canvas, surface: int, position: Vector) -> None:
    spread = np.array([[-0.6, 0, 0], [0.6, 2.0, 0]])
    box = canvas.camera.project(canvas.camera.to_camera(position + spread))
    if abs(box[0, 1] - box[1, 1]) > 40:
        canvas.grain(surface, np.stack([box.min(0), box.max(0)]), textures.grain(1.1, 62, 0.1))


def draw_cycle(canvas: Canvas, cycle: Cycle) -> None:
    """Paint a two-wheeler; its rider is a separate surface."""
    position = np.array([cycle.x, cycle.base, cycle.z])
    depth = float(canvas.camera.to_camera(position)[2])
    clothes = _clothes(canvas)
    tint = canvas.colour_rng.uniform(20, 200, 3)
    if depth < 4 * NEAR:
        return
    surface = canvas.add_surface(MOTORCYCLE if cycle.motor else BICYCLE, depth)
    _wheels(canvas, cycle, position, surface)
    (_motorcycle if cycle.motor else _bicycle)(canvas, cycle, position, tint, surface)
    if cycle.rider:
        rider = canvas.add_surface(RIDER, depth)
        clothes["hair"] = np.array([30.0, 30, 34]) if cycle.motor else tint * 0.5 + 90
        _draw_body(canvas, _riding(cycle.motor, cycle.phase), clothes, rider, cycle)
        _cloth_grain(canvas, rider, position)


def _wheels(canvas: Canvas, cycle: Cycle, position: Vector, surface: int) -> None:
    """Paint spoked or solid wheels; the surface includes the whole disc."""
    radius, base = (0.31, 0.68) if cycle.motor else (0.34, 0.52)
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    shade = canvas.shade([[34, 34, 36]], np.array([[0.0, 0.2, -0.3]]))[0]
    grey = canvas.shade([[150, 150, 152]], np.array([[0.0, 0.2, -0.3]]))[0]
    for z in (-base, base):
        ring = np.stack(
            [np.zeros(20), radius + radius * np.sin(turn), z + radius * np.cos(turn)], 1
        )
        seen = canvas.camera.to_camera(to_world(ring, position, cycle.heading))
        if seen[:, 2].min() < NEAR:
            return
        pixels = canvas.camera.project(seen)
        scale = canvas.camera.focal / seen[:, 2].mean()
        tyre = (0.12 if cycle.motor else 0.04) * scale
        canvas.fill_polygon(pixels, shade * 0.9 if cycle.motor else None, surface)
        if not cycle.motor and scale > 45:
            for i in range(0, 10, 2):
                canvas.draw_line(pixels[[i, i + 10]], grey * 0.7, 1, closed=False)
        if cycle.motor:
            middle = pixels.mean(0)
            canvas.fill_polygon(middle + (pixels - middle) * 0.55, grey * 0.6)
        canvas.draw_line(pixels, shade, tyre)
        edge = to_world(np.array([[0, 0, z], [0, 2 * radius, z]]), position, cycle.heading)
        draw_rods(
            canvas,
            edge[:1],
            edge[1:],
            [(0.03, 0.03) if not cycle.motor else (0.06, 0.06)],
            np.array([[32.0, 32, 34]]),
            surface,
        ) if abs(np.ptp(pixels[:, 0])) < 0.25 * scale else None


def _rods(canvas: Canvas, cycle: Cycle, position: Vector, rods: list[Rod], surface: int) -> None:
    starts, ends, radii, colours = zip(*rods, strict=True)
    draw_rods(
        canvas,
        to_world(np.array(starts, float), position, cycle.heading),
        to_world(np.array(ends, float), position, cycle.heading),
        np.array(radii, float)[:, None] * (1, 1),
        np.array(colours, float),
        surface,
    )


def _bicycle(
    canvas: Canvas, cycle: Cycle, position: Vector, tint: np.ndarray, surface: int
) -> None:
    rear, crank, saddle = (0, 0.34, -0.52), (0, 0.30, -0.05), (0, 0.88, -0.22)
    head, front, dark = (0, 0.85, 0.36), (0, 0.34, 0.52), (30, 30, 32)
    _rods(
        canvas,
        cycle,
        position,
        [
            (rear, crank, 0.016, tint),
            (rear, (0, 0.72, -0.17), 0.014, tint),
            (crank, saddle, 0.02, tint),
            (crank, (0, 0.72, 0.38), 0.022, tint),
            ((0, 0.74, -0.17), (0, 0.80, 0.36), 0.02, tint),
            (head, front, 0.018, tint),
            (head, (0, 1.04, 0.36), 0.016, dark),
            ((-0.28, 1.04, 0.40), (0.28, 1.04, 0.40), 0.018, dark),
            ((0, 0.92, -0.34), (0, 0.92, -0.1), 0.045, dark),
            ((0, 0.30, -0.05), (0.1, 0.16, 0.05), 0.02, dark),
            ((0, 0.30, -0.05), (0, 0.30, -0.04), 0.08, (70, 70, 72)),
        ],
        surface,
    )


def _motorcycle(
    canvas: Canvas, cycle: Cycle, position: Vector, tint: np.ndarray, surface: int
) -> None:
    dark, steel = (28, 28, 30), (120, 122, 126)
    lamp = (255, 244, 214, 255) if canvas.lit else (214, 216, 214, 0)
    _rods(
        canvas,
        cycle,
        position,
        [
            ((0, 0.31, -0.68), (0, 0.42, -0.1), 0.05, dark),
            ((0, 0.38, -0.1), (0, 0.42, 0.2), 0.17, (64, 64, 68)),
            ((0, 0.5, -0.15), (0, 0.55, 0.2), 0.12, steel),
            ((0.14, 0.3, -0.7), (0.14, 0.33, 0.1), 0.05, steel),
            ((0, 0.72, -0.75), (0, 0.72, -0.05), 0.11, dark),
            ((0, 0.72, -0.78), (0, 0.68, -0.6), 0.1, tint),
            ((0, 0.82, 0.02), (0, 0.86, 0.32), 0.15, tint),
            ((0, 0.9, 0.42), (0, 0.31, 0.68), 0.045, steel),
            ((0, 0.62, 0.6), (0, 0.64, 0.72), 0.1, tint),
            ((-0.34, 1.04, 0.4), (0.34, 1.04, 0.4), 0.025, dark),
        ],
        surface,
    )
    place = to_world(np.array([[0, 0.9, 0.5], [0, 0.9, 0.56]]), position, cycle.heading)
    if canvas.camera.to_camera(place[1])[2] < canvas.camera.to_camera(place[0])[2]:
        draw_rods(
            canvas,
            place[:1],
            place[1:],
            [(0.1, 0.1)],
            np.array([lamp], float),
            surface,
            round_light=False,
        )
