"""A minimal backbone with a feature pyramid, and the arguments of a small segmentor."""

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn
from torch.nn import functional as F


class Patches(Backbone):
    """A patch embedding and its pooled maps, a minimal pyramid."""

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
