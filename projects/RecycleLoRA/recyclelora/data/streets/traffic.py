"""Everything that moves or is parked, what is painted on the road, and the posts beside it."""

import numpy as np

from .furniture import SHAPES, Post, draw_post, lamp_head
from .ground import KERB, Mark, rectangle
from .layout import STREET, Scene, add_guard_rail, sidewalk_x
from .people import Cycle, Person, draw_cycle, draw_person
from .street import Street
from .vehicles import KINDS, Vehicle, draw_vehicle

CLEAR = 6.5  # metres around the camera without vehicles


def add_markings(scene: Scene, rng: np.random.Generator):
    """Lines between lanes, at the edges and around parking bays; zebra crossings, rails, arrows."""
    street, marks = scene.street, scene.ground.marks
    wear = rng.uniform(0.55, 0.95)
    driving = 0.5 * street.lanes * street.lane
    for z0, z1 in street.blocks:
        _patches(marks, rng, street, z0, z1)
        for i in range(1, street.lanes):
            x = -driving + i * street.lane
            centre = 2 * i == street.lanes
            if centre and rng.random() < 0.3:
                for shift in (-0.13, 0.13):
                    marks.append(
                        Mark(
                            rectangle(x + shift - 0.05, x + shift + 0.05, z0 + 6, z1 - 6),
                            "white",
                            wear,
                        )
                    )
                continue
            period, dash = (6.0, 3.0) if centre else (9.0, 3.0)
            for z in np.arange(z0 + 5, z1 - 5, period):
                marks.append(Mark(rectangle(x - 0.07, x + 0.07, z, z + dash), "white", wear))
        for side in street.sides:
            edge = side.sign * (street.half - 0.3)
            if side.parking:
                for z in np.arange(z0 + 6, z1 - 5, 5.6):
                    a, b = sorted((side.sign * street.half, side.sign * (street.half - 2.1)))
                    marks.append(Mark(rectangle(a, b, z, z + 0.1), "white", wear * 0.8))
            elif rng.random() < 0.5:
                colour = "yellow" if rng.random() < 0.5 else "white"
                for shift in (0.0, 0.22)[: int(rng.integers(1, 3))]:
                    x = edge - side.sign * shift
                    marks.append(Mark(rectangle(x - 0.05, x + 0.05, z0 + 4, z1 - 4), colour, wear))
        _crossing(marks, rng, street, z1, wear)
    if street.tram:
        for centre in (-0.5 * street.lane, 0.5 * street.lane):
            marks.append(Mark(rectangle(centre - 1.1, centre + 1.1, -12, street.end), "patch", 0.5))
            for shift in (-0.72, 0.72):
                x = centre + shift
                marks.append(Mark(rectangle(x - 0.05, x + 0.05, -12, street.end), "rail", 0.9))
                marks.append(Mark(rectangle(x + 0.05, x + 0.09, -12, street.end), "dark", 0.9))


def _patches(marks, rng, street: Street, z0: float, z1: float):
    """Repairs in the asphalt, manhole covers, a coloured cycle lane."""
    if rng.random() < 0.15:
        marks.append(Mark(rectangle(street.half - 1.6, street.half, z0, z1), "bay", 0.8))
    for _ in range(rng.poisson((z1 - z0) / 14)):
        x, z = rng.uniform(-street.half, street.half - 1), rng.uniform(z0, z1)
        patch = rectangle(x, x + rng.uniform(0.5, 2.2), z, z + rng.uniform(0.6, 7))
        marks.append(Mark(patch, "patch" if rng.random() < 0.6 else "dark", rng.uniform(0.2, 0.6)))
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for _ in range(rng.poisson((z1 - z0) / 22)):
        centre = np.array([rng.uniform(-street.half + 0.6, street.half - 0.6), rng.uniform(z0, z1)])
        marks.append(Mark(centre + 0.32 * np.stack([np.cos(turn), np.sin(turn)], 1), "dark", 0.7))


def _crossing(marks, rng, street: Street, z: float, wear: float):
    """A stop line, now and then a zebra and arrows, before the crossing street at ``z``."""
    if z > street.end - 12 or rng.random() < 0.15:
        return
    if rng.random() < 0.6:
        for x in np.arange(-street.half + 0.4, street.half - 0.5, 1.0):
            marks.append(Mark(rectangle(x, x + 0.5, z - 6, z - 3), "white", wear))
    a, b = sorted((0.1 * street.drive, street.drive * (street.half - 0.4)))
    marks.append(Mark(rectangle(a, b, z - 7.6, z - 7.2), "white", wear))
    x = street.drive * 0.5 * street.lane
    shaft = [
        (x - 0.08, z - 14),
        (x + 0.08, z - 14),
        (x + 0.08, z - 11),
        (x + 0.3, z - 11),
        (x, z - 9.6),
        (x - 0.3, z - 11),
        (x - 0.08, z - 11),
    ]
    if rng.random() < 0.5:
        marks.append(Mark(np.array(shaft), "white", wear))


def add_posts(scene: Scene, rng: np.random.Generator):
    """Street lamps in a row, signs, traffic lights at crossings, bollards."""
    street = scene.street
    pitch, height = rng.uniform(18, 34), rng.uniform(5.5, 9.0)
    for side in street.sides:
        x = side.sign * (street.half + 0.45)
        back = side.sign * (street.half + side.inner - 0.25)
        if rng.random() < 0.75:
            for z in np.arange(rng.uniform(-6, 14), street.end, pitch):
                if _on_land(street, z):
                    lamp = Post("lamp", x, z, -side.sign, height)
                    scene.lamps.append(lamp_head(lamp))
                    _post(scene, lamp)
        for _ in range(rng.poisson(3.0)):
            z = rng.uniform(7, 70)
            if _on_land(street, z):
                towards_us = side.sign == street.drive or rng.random() < 0.3
                heading = np.pi if towards_us else 0.0
                heading += rng.normal(0, 0.15) + (rng.random() < 0.1) * side.sign * np.pi / 2
                _post(
                    scene,
                    Post(
                        "sign",
                        x if rng.random() < 0.7 else back,
                        z,
                        -side.sign,
                        rng.uniform(2.3, 3.3),
                        heading,
                        SHAPES[rng.integers(len(SHAPES))],
                        int(rng.integers(4)),
                    ),
                )
        if rng.random() < 0.3:
            start = rng.uniform(3, 30)
            for z in np.arange(start, start + rng.uniform(6, 25), rng.uniform(1.4, 2.6)):
                if _on_land(street, z):
                    _post(
                        scene,
                        Post(
                            "bollard",
                            side.sign * (street.half + 0.35),
                            z,
                            -side.sign,
                            rng.uniform(0.8, 1.05),
                        ),
                    )
        if rng.random() < 0.25:
            for z in np.arange(rng.uniform(5, 20), street.end, 32):
                if _on_land(street, z):
                    _post(scene, Post("mast", back, z, -side.sign, rng.uniform(7, 10)))
    _signals(scene, rng)
    if rng.random() < 0.3:
        add_guard_rail(scene, rng)


def _signals(scene: Scene, rng):
    """Traffic lights before and behind the crossing streets, or at a crossing for people."""
    street = scene.street
    stops = [z1 for _, z1 in street.blocks[:3] if 6 < z1 < 75]
    if not stops and rng.random() < 0.45:
        stops = [rng.uniform(9, 40)]
    for stop in stops[:2]:
        if rng.random() < 0.25:
            continue
        state = int(rng.integers(4))
        tall = bool(rng.random() < 0.3)
        for side in street.sides:
            x = side.sign * (street.half + 0.5)
            ours = side.sign == street.drive
            kind = "gantry" if tall and ours else "lights"
            height = 5.6 if kind == "gantry" else rng.uniform(2.9, 3.6)
            _post(
                scene,
                Post(
                    kind,
                    x,
                    stop - 3.0,
                    -side.sign,
                    height,
                    np.pi if ours else rng.choice((0.0, np.pi)),
                    state=state,
                ),
            )
            if rng.random() < 0.6:
                heading = np.pi if rng.random() < 0.6 else -side.sign * np.pi / 2
                _post(
                    scene,
                    Post(
                        "lights",
                        x,
                        stop + 13.0,
                        -side.sign,
                        rng.uniform(2.9, 3.6),
                        heading,
                        state=state,
                    ),
                )


def _post(scene: Scene, post: Post):
    if np.hypot(post.x - scene.street.camera_x, post.z) > 3.0:
        scene.put(STREET, draw_post, post)


def _on_land(street: Street, z: float) -> bool:
    return any(z0 + 3 < z < z1 - 3 for z0, z1 in street.blocks)


def _vehicle(scene: Scene, rng, kind: str, x: float, z: float, heading: float, taken: list) -> bool:
    """Put a vehicle there unless it would touch another or the camera."""
    shape = KINDS[kind][rng.integers(len(KINDS[kind]))]
    item = Vehicle(kind, shape, x, z, heading, rng.uniform(0.95, 1.06) if kind == "car" else 1.0)
    spot = item.footprint()
    low, high = spot.min(0)[[0, 2]] - 0.3, spot.max(0)[[0, 2]] + 0.5
    camera = np.array([scene.street.camera_x, 0.0])
    if (camera > low - 0.6).all() and (camera < high + 1.5).all():
        return False
    if abs(x - camera[0]) < 1.9 and high[1] > -2 and low[1] < CLEAR:
        return False
    if any((low < b).all() and (high > a).all() for a, b in taken):
        return False
    taken.append((low, high))
    scene.put(STREET, draw_vehicle, item)
    return True


def add_traffic(scene: Scene, rng: np.random.Generator):
    """Trams on their rails, vehicles in their lanes, rows of parked cars, two-wheelers."""
    street, taken = scene.street, []
    if street.tram:
        side = int(rng.choice((-1, 1)))
        heading = 0.0 if side == street.drive else np.pi
        for _ in range(4):
            if _vehicle(
                scene, rng, "train", side * 0.5 * street.lane, rng.uniform(20, 75), heading, taken
            ):
                break
    bus = rng.random() < 0.6
    trucks = 0.55 if rng.random() < 0.5 else 0.1
    flow = rng.choice((0.4, 1.0, 2.2))
    for i in range(street.lanes):
        x = (i - 0.5 * (street.lanes - 1)) * street.lane
        heading = 0.0 if np.sign(x or 1) == street.drive else np.pi
        for z in np.cumsum(rng.exponential(24 / flow, 14)) + rng.uniform(-8, 12):
            if z > street.end - 8:
                break
            kind = "truck" if rng.random() < 0.16 * trucks else "car"
            if bus and z > 8 and rng.random() < 0.3:
                kind, bus = "bus", False
            if rng.random() < 0.10:
                _cycle(
                    scene, rng, x + rng.normal(0, 0.4), z, heading, taken, motor=rng.random() < 0.6
                )
            else:
                _vehicle(
                    scene,
                    rng,
                    kind,
                    x + rng.normal(0, 0.15),
                    z,
                    heading + rng.normal(0, 0.02),
                    taken,
                )
    for side in street.sides:
        _parked(scene, rng, side, taken, bus, trucks)
    for _ in range(rng.poisson(0.5)):
        _crossing_vehicle(scene, rng, taken)
    for _ in range(rng.poisson(1.1)):
        side = street.sides[int(rng.integers(2))]
        heading = 0.0 if side.sign == street.drive else np.pi
        x = side.sign * (street.half - (2.6 if side.parking else 0.6))
        _cycle(
            scene,
            rng,
            x,
            rng.uniform(5, 45),
            heading + rng.normal(0, 0.1),
            taken,
            motor=rng.random() < 0.25,
        )


def _parked(scene: Scene, rng, side, taken, bus: bool, trucks: float):
    street = scene.street
    if side.parking:
        x = side.sign * (street.half - 1.05)
        for z0, z1 in street.blocks:
            for z in np.arange(z0 + 7, z1 - 6, 5.6):
                if rng.random() < side.parking:
                    kind = "truck" if rng.random() < 0.05 * trucks else "car"
                    if rng.random() < 0.05:
                        _cycle(
                            scene,
                            rng,
                            x,
                            z,
                            side.sign * np.pi / 2 + rng.normal(0, 0.3),
                            taken,
                            motor=True,
                            rider=False,
                        )
                        continue
                    turned = np.pi * (rng.random() < 0.3) + (
                        0.0 if side.sign == street.drive else np.pi
                    )
                    _vehicle(
                        scene,
                        rng,
                        kind,
                        x + rng.normal(0, 0.08),
                        z + rng.normal(0, 0.2),
                        turned,
                        taken,
                    )
    elif bus and rng.random() < 0.6:
        heading = 0.0 if side.sign == street.drive else np.pi
        _vehicle(
            scene, rng, "bus", side.sign * (street.half - 1.5), rng.uniform(14, 45), heading, taken
        )


def _crossing_vehicle(scene: Scene, rng, taken):
    """A car that turns into or comes out of a crossing street."""
    gaps = [z1 for _, z1 in scene.street.blocks if 12 < z1 < scene.street.end - 12]
    if gaps:
        z = gaps[int(rng.integers(len(gaps)))] + rng.uniform(3, 6)
        heading = rng.choice((-1, 1)) * np.pi / 2 + rng.normal(0, 0.15)
        _vehicle(scene, rng, "car", rng.uniform(-14, 14), z, heading, taken)


def _cycle(scene: Scene, rng, x, z, heading, taken, *, motor, rider=True, base=0.0):
    low, high = np.array([x - 0.5, z - 1.1]), np.array([x + 0.5, z + 1.1])
    if np.hypot(x - scene.street.camera_x, z) < 4 or any(
        (low < b).all() and (high > a).all() for a, b in taken
    ):
        return
    taken.append((low, high))
    scene.put(
        STREET,
        draw_cycle,
        Cycle(bool(motor), x, z, heading, rider, rng.uniform(0, 2 * np.pi), base),
    )


def add_people(scene: Scene, rng: np.random.Generator):
    """People on the sidewalks, some crossing the road; bicycles left at the kerb."""
    street = scene.street
    busy = rng.choice((0.5, 1.5, 3.5))
    for side in street.sides:
        for _ in range(rng.poisson(2.6 * busy)):
            z = 3.5 + rng.exponential(20)
            if not _on_land(street, z):
                continue
            x, heading = sidewalk_x(rng, street, side), rng.choice((0, np.pi)) + rng.normal(0, 0.3)
            for i in range(1 + (rng.random() < 0.3)):
                _person(
                    scene, rng, x + 0.55 * i, z + rng.normal(0, 0.1), heading, rng.random() < 0.8
                )
        if rng.random() < 0.45:
            z, lean = rng.uniform(4, 30), rng.uniform(0.2, np.pi / 2)
            for i in range(int(rng.integers(1, 6))):
                motor = rng.random() < 0.22
                _cycle(
                    scene,
                    rng,
                    side.sign * (street.half + 0.75),
                    z + i * 0.9,
                    lean + rng.normal(0, 0.1),
                    [],
                    motor=motor,
                    rider=False,
                    base=KERB,
                )
    for _ in range(rng.poisson(0.35 * busy)):
        heading = rng.choice((-1, 1)) * np.pi / 2
        _person(
            scene,
            rng,
            rng.uniform(-street.half, street.half),
            rng.uniform(8, 40),
            heading,
            True,
            base=0.0,
        )


def _person(scene: Scene, rng, x, z, heading, walks, base=KERB):
    height = rng.normal(1.72, 0.08) if rng.random() < 0.9 else rng.uniform(1.0, 1.45)
    person = Person(
        x,
        z,
        heading,
        height,
        rng.uniform(0, 2 * np.pi),
        rng.uniform(0.3, 0.55) if walks else rng.uniform(0, 0.1),
        rng.uniform(0, 1.2) * (rng.random() < 0.4),
        bool(rng.random() < 0.3),
        bool(rng.random() < 0.35),
        base,
    )
    if np.hypot(x - scene.street.camera_x, z) > 3.0:
        scene.put(STREET, draw_person, person)
