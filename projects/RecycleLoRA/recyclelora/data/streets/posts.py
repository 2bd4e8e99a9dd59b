"""Which poles stand beside a street: lamps in a row, signs, traffic lights, bollards."""

import numpy as np

from .furniture import SHAPES, Post, draw_post, lamp_head
from .layout import STREET, Scene, add_guard_rail


def add_posts(scene: Scene, rng: np.random.Generator):
    """Street lamps in a row, signs, traffic lights at crossings, bollards."""
    street = scene.street
    pitch, height = rng.uniform(18, 34), rng.uniform(5.5, 9.0)
    for side in street.sides:
        x = side.sign * (street.half + 0.45)
        back = side.sign * (street.half + side.inner - 0.25)
        if rng.random() < 0.75:
            for z in np.arange(rng.uniform(-6, 14), street.end, pitch):
                if street.on_land(z):
                    lamp = Post("lamp", x, z, -side.sign, height)
                    scene.lamps.append(lamp_head(lamp))
                    _post(scene, lamp)
        for _ in range(rng.poisson(3.0)):
            z = rng.uniform(7, 70)
            if street.on_land(z):
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
                if street.on_land(z):
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
                if street.on_land(z):
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
