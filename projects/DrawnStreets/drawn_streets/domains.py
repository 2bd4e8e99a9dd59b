"""Domains: weather, light, materials and camera of a scene. A domain never changes a label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np

Range: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[float, float, float]
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Palette:
    """RGB colours of objects in full light, and the materials of walls."""

    facades: tuple[Colour, ...]
    materials: tuple[str, ...]
    roofs: tuple[Colour, ...]
    asphalt: tuple[Colour, ...]
    paving: tuple[Colour, ...]
    grass: tuple[Colour, ...]
    leaves: tuple[Colour, ...]
    bark: Colour
    cars: tuple[Colour, ...]
    clothes: tuple[Colour, ...]
    markings: tuple[Colour, ...]

    def sample(self, rng: np.random.Generator) -> "Palette":
        """Return a random subset of the palette with shifted colours: that of one town."""

        def subset(choices: Sequence[Choice], most: int) -> list[Choice]:
            count = int(rng.integers(2, most + 1))
            return [choices[i] for i in rng.choice(len(choices), min(count, len(choices)), False)]

        def shifted(colours: Sequence[Colour], spread: float) -> tuple[Colour, ...]:
            warm, green, bright = rng.normal(0, (0.8 * spread, 0.25 * spread, 1.5 * spread))
            tint = np.exp(np.array([warm, green, -warm]) + bright)
            return tuple(tuple(np.clip(np.array(c) * tint, 8, 250)) for c in colours)

        return replace(
            self,
            facades=shifted(subset(self.facades, 7), 0.06),
            materials=tuple(subset(self.materials, 4)),
            roofs=shifted(subset(self.roofs, 3), 0.08),
            paving=shifted(self.paving, 0.05),
            asphalt=shifted(self.asphalt, 0.03),
            grass=shifted(self.grass, 0.1),
            leaves=shifted(subset(self.leaves, 4), 0.1),
        )


CLOTHES = (
    (38, 40, 48),
    (52, 62, 88),
    (92, 96, 104),
    (140, 132, 120),
    (200, 198, 192),
    (120, 44, 40),
    (64, 84, 58),
    (58, 98, 140),
    (176, 150, 66),
    (90, 66, 50),
    (178, 92, 110),
    (30, 30, 32),
)
TEMPERATE = Palette(
    facades=(
        (150, 92, 72),
        (128, 78, 62),
        (172, 116, 86),
        (196, 172, 136),
        (214, 204, 184),
        (186, 180, 168),
        (222, 214, 196),
        (160, 150, 136),
        (204, 186, 148),
        (178, 160, 150),
        (232, 230, 222),
        (148, 140, 132),
        (190, 146, 112),
        (120, 112, 106),
        (206, 196, 160),
        (176, 188, 190),
    ),
    materials=("brick", "brick", "plaster", "plaster", "stone", "siding", "panel"),
    roofs=((112, 66, 52), (92, 88, 90), (74, 72, 76), (130, 82, 62), (88, 78, 70)),
    asphalt=((104, 104, 106), (88, 90, 94), (122, 120, 118), (76, 77, 80), (112, 112, 116)),
    paving=((152, 148, 142), (138, 134, 130), (168, 160, 150), (124, 122, 120), (160, 146, 134)),
    grass=((92, 112, 50), (108, 122, 58), (78, 102, 44), (128, 126, 72)),
    leaves=(
        (86, 116, 46),
        (74, 102, 44),
        (102, 126, 52),
        (64, 92, 46),
        (116, 124, 54),
        (150, 116, 46),
    ),
    bark=(98, 86, 74),
    cars=(
        (196, 198, 202),
        (150, 154, 160),
        (228, 228, 228),
        (30, 32, 36),
        (44, 48, 56),
        (92, 96, 104),
        (150, 30, 30),
        (40, 62, 120),
        (70, 96, 140),
        (36, 72, 56),
        (120, 100, 74),
        (190, 188, 176),
    ),
    clothes=CLOTHES,
    markings=((226, 226, 222), (226, 226, 222), (214, 214, 206), (222, 190, 88)),
)
SOUTHERN = Palette(
    facades=(
        (214, 150, 92),
        (226, 184, 112),
        (190, 108, 84),
        (236, 214, 170),
        (120, 150, 168),
        (222, 170, 150),
        (160, 180, 140),
        (240, 236, 226),
        (196, 126, 60),
        (110, 126, 150),
        (206, 110, 96),
        (232, 200, 90),
    ),
    materials=("adobe", "adobe", "plaster", "glass", "panel", "siding", "planks"),
    roofs=((182, 104, 66), (196, 128, 84), (150, 150, 148), (104, 120, 112)),
    asphalt=((146, 138, 128), (128, 118, 106), (156, 152, 148), (112, 102, 96)),
    paving=((190, 170, 140), (176, 150, 126), (200, 186, 166), (158, 130, 112)),
    grass=((158, 146, 84), (142, 126, 84), (120, 134, 62), (176, 150, 106)),
    leaves=((110, 128, 74), (132, 134, 70), (92, 120, 82), (150, 140, 76), (172, 110, 50)),
    bark=(134, 112, 88),
    cars=(
        (236, 236, 234),
        (220, 214, 196),
        (206, 160, 50),
        (40, 130, 150),
        (178, 60, 40),
        (60, 60, 64),
        (116, 160, 110),
        (150, 154, 160),
        (70, 60, 110),
        (214, 120, 60),
    ),
    clothes=(
        (232, 230, 224),
        (220, 160, 60),
        (190, 70, 60),
        (50, 120, 150),
        (60, 54, 60),
        (150, 180, 120),
    ),
    markings=((240, 214, 92), (240, 240, 234), (244, 196, 64)),
)


@dataclass(frozen=True)
class Domain:
    """The appearance of scenes. Pairs are the ranges of uniform distributions, sampled per image.

    Parameters
    ----------
    name : str
        Name in ``DOMAINS`` and in ``dataset.json``.
    sun : tuple of float
        Strength of direct sunlight, from 0 (overcast) to 1 (clear).
    elevation : tuple of float
        Elevation of the sun in degrees.
    clouds : tuple of float
        Cloud cover from 0 to 1.
    haze : tuple of float
        Extinction coefficient of the air in 1 / metres.
    darkness : tuple of float
        From 0 (day) to 1 (night); lamps and windows are lit above 0.2.
    wet, rain, snow : tuple of float
        Reflectivity of the ground, density of rain streaks, whiteness of upward faces.
    tint : tuple of float
        RGB gain of the image.
    sky : tuple of float
        Gain of the sky's radiance.
    backlit : float
        Share of images that are exposed for the sky, so that the street is dark.
    exposure : tuple of float
        Deviation from the metered exposure in stops.
    contrast, saturation : tuple of float
        Slope of the tone curve; colour saturation, where 0 is grey and 1 leaves colours unchanged.
    noise : tuple of float
        Standard deviation in grey levels.
    blur : tuple of float
        Standard deviation of a Gaussian in pixels, for images 512 pixels high.
    palette : Palette
        Colours and materials.
    """

    name: str
    sun: Range = (0.0, 1.0)
    elevation: Range = (18.0, 62.0)
    clouds: Range = (0.0, 1.0)
    haze: Range = (0.0002, 0.0028)
    darkness: Range = (0.0, 0.0)
    wet: Range = (0.0, 0.0)
    rain: Range = (0.0, 0.0)
    snow: Range = (0.0, 0.0)
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sky: Range = (0.8, 2.2)
    backlit: float = 0.12
    exposure: Range = (-0.8, 0.8)
    contrast: Range = (0.9, 1.45)
    saturation: Range = (0.65, 1.2)
    noise: Range = (0.3, 4.0)
    blur: Range = (0.0, 0.9)
    palette: Palette = TEMPERATE


DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        Domain("day"),
        Domain(
            "dusk",
            sun=(0.0, 0.3),
            elevation=(6.0, 14.0),
            clouds=(0.4, 0.9),
            darkness=(0.0, 0.5),
            sky=(1.5, 6.0),
            tint=(0.94, 1.0, 1.06),
            exposure=(-2.8, -0.8),
            noise=(1.0, 5.0),
        ),
        Domain(
            "night",
            sun=(0.0, 0.0),
            clouds=(0.2, 0.9),
            darkness=(0.8, 1.0),
            backlit=0.0,
            exposure=(-1.6, 0.2),
            tint=(1.05, 1.0, 0.92),
            noise=(2.0, 7.0),
            blur=(0.3, 1.0),
        ),
        Domain(
            "fog",
            sun=(0.0, 0.1),
            clouds=(1.0, 1.0),
            haze=(0.018, 0.05),
            sky=(0.9, 1.2),
            backlit=0.0,
            contrast=(0.8, 1.0),
            saturation=(0.5, 0.8),
        ),
        Domain(
            "rain",
            sun=(0.0, 0.0),
            clouds=(0.9, 1.0),
            haze=(0.004, 0.012),
            darkness=(0.0, 0.25),
            wet=(0.35, 0.65),
            rain=(0.4, 1.0),
            exposure=(-1.4, 0.2),
            saturation=(0.6, 0.85),
            blur=(0.4, 1.3),
            noise=(1.0, 5.0),
        ),
        Domain(
            "snow",
            sun=(0.0, 0.4),
            clouds=(0.6, 1.0),
            haze=(0.003, 0.01),
            snow=(0.55, 1.0),
            tint=(0.97, 1.0, 1.04),
            saturation=(0.6, 0.9),
        ),
        Domain(
            "textures",
            palette=SOUTHERN,
            sun=(0.4, 1.0),
            elevation=(35.0, 75.0),
            clouds=(0.0, 0.4),
            tint=(1.05, 1.0, 0.93),
            saturation=(0.9, 1.35),
            contrast=(0.95, 1.35),
        ),
    )
}


def sample_range(rng: np.random.Generator, pair: Range) -> float:
    """Sample a number uniformly from a range."""
    return float(rng.uniform(*pair))


def find_domain(name: str) -> Domain:
    """Return the domain of this name; raise a ValueError that lists all names if there is none."""
    if name not in DOMAINS:
        raise ValueError(f"unknown street domain {name!r}: expected one of {', '.join(DOMAINS)}")
    return DOMAINS[name]
