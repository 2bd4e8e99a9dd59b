"""A small segmentor on random features, and street-like samples for it."""

import pytest
import torch

from recyclelora.mask2former import build_segmentor

from ..support.small_segmentor import SMALL, Patches


@pytest.fixture
def backbone():
    return Patches()


@pytest.fixture
def small():
    """Return keyword arguments of `build_segmentor` for a small head."""
    return dict(SMALL)


@pytest.fixture
def model(backbone, small):
    return build_segmentor(backbone, **small)


@pytest.fixture
def sample():
    """sample(seed, h, w): an image with four blocks of classes and a strip of ignored pixels."""

    def make(seed=0, h=64, w=96):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, 19, (2, 2), generator=generator)
        label = ids.repeat_interleave(h // 2, 0).repeat_interleave(w // 2, 1)
        label[:4] = 255
        image = torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8)
        return {"image": image, "sem_seg": label, "seed": seed, "file_name": f"street_{seed}.png"}

    return make
