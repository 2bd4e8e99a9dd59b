"""The camera pipeline: exposure, tone curve and alignment with the labels."""

from dataclasses import replace

import numpy as np
import pytest

from drawn_streets import DOMAINS, draw_street
from drawn_streets.imaging.camera_pipeline import photograph

STILL = replace(DOMAINS["day"], noise=(0, 0), blur=(0, 0), backlit=0.0, exposure=(0, 0))


def ramp():
    """Return light that increases from 0 to 1 from left to right, (64, 128, 3)."""
    return np.repeat(np.linspace(0, 1, 128, dtype=np.float32)[None, :, None], 64, 0).repeat(3, 2)


def shot(light, seed=0, domain=STILL):
    return photograph(light.copy(), domain, 0.0, np.random.default_rng(seed)).astype(int)


@pytest.mark.parametrize("seed", range(4))
def test_exposure_of_doubled_light_is_unchanged(seed):
    assert np.abs(shot(ramp(), seed) - shot(2 * ramp(), seed)).max() <= 2


@pytest.mark.parametrize("seed", range(6))
def test_tone_curve_of_a_ramp_is_monotonic(seed):
    tone = shot(ramp(), seed).mean((0, 2))
    assert tone[-1] - tone[0] > 80
    assert (np.diff(tone[4:-4:8]) >= -3).all()  # except for ringing of sharpening and JPEG


def test_exposure_one_stop_less_is_darker():
    dark = replace(STILL, exposure=(-1.0, -1.0))
    for seed in range(4):
        assert shot(ramp(), seed, dark).mean() < 0.85 * shot(ramp(), seed).mean()


def test_label_edges_coincide_with_image_edges():
    """No shift of the label by up to two pixels fits the picture better than no shift."""
    sharp = replace(STILL, darkness=(0, 0), haze=(0.0, 0.0), clouds=(0, 0))
    shifts = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    fits = np.zeros(len(shifts))
    for index in range(4):
        image, label = draw_street(8, index, sharp, 256, 512)
        grey = image.astype(float).mean(2)
        for axis in (0, 1):
            step = np.abs(np.diff(grey, axis=axis))
            for i, shift in enumerate(shifts):
                edge = np.diff(np.roll(label, shift, (0, 1)), axis=axis) != 0
                fits[i] += step[4:-4, 4:-4][edge[4:-4, 4:-4]].mean()
    assert shifts[int(fits.argmax())] == (0, 0)
