"""A small segmentor on random features, and street-like samples for it."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn
from torch.nn import functional as F

from recyclelora.mask2former import build_segmentor


class Patches(Backbone):
    """A patch embedding and its poolings: the least that is a pyramid."""

    size_divisibility = 32

    def __init__(self, channels=16):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, kernel_size=4, stride=4)

    def forward(self, images):
        finest = self.stem(images)
        return {f"res{i}": F.avg_pool2d(finest, 2 ** (i - 2)) for i in range(2, 6)}

    def output_shape(self):
        channels = self.stem.out_channels
        return {f"res{i}": ShapeSpec(channels=channels, stride=2**i) for i in range(2, 6)}


SMALL = {
    "num_classes": 19,
    "hidden_dim": 32,
    "nheads": 4,
    "enc_layers": 1,
    "enc_dim_feedforward": 32,
    "dec_layers": 2,
    "dec_dim_feedforward": 32,
    "num_queries": 8,
    "num_points": 128,
}


@pytest.fixture
def backbone():
    return Patches()


@pytest.fixture
def small():
    """Keyword arguments of `build_segmentor` for a head of seconds' tests."""
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
