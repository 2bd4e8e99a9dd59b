"""A feature pyramid from the maps of a plain vision transformer, which have equal sizes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch.nn import functional as F

# Level -> factor by which its map is resized: strides 4, 8, 16, 32 with a patch of 16 pixels.
SCALES = {"res2": 4.0, "res3": 2.0, "res4": 1.0, "res5": 0.5}
PATCH_SIZE = 16
STRIDES = {level: int(PATCH_SIZE / scale) for level, scale in SCALES.items()}


class CoarseMap(NamedTuple):
    """A level of the pyramid before it is enlarged.

    Attributes
    ----------
    feature : Tensor
        The map (B, C, h, w).
    scale : float
        The factor of :func:`resize_map`.
    """

    feature: torch.Tensor
    scale: float


def resize_map(feature: torch.Tensor, scale: float) -> torch.Tensor:
    """Resize a map bilinearly without aligned corners.

    Half of an odd side is rounded down, and every second position is sampled exactly.

    Parameters
    ----------
    feature : Tensor
        A map (B, C, h, w).
    scale : float
        The factor of both sides.

    Returns
    -------
    Tensor
        The resized map.
    """
    if scale == 1:
        return feature
    # scale_factor and size sample odd sides at different positions.
    return F.interpolate(feature, scale_factor=scale, mode="bilinear", align_corners=False)


def feature_pyramid(
    maps: Sequence[torch.Tensor], *, enlarge: bool = True
) -> dict[str, torch.Tensor | CoarseMap]:
    """Resize four maps by 4, 2, 1 and 1/2 into ``res2`` .. ``res5`` with :func:`resize_map`.

    Parameters
    ----------
    maps : Sequence[Tensor]
        Four maps (B, C, h, w).
    enlarge : bool
        False returns ``res2`` and ``res3`` as a :class:`CoarseMap`. A convolution with a kernel of
        one pixel commutes with :func:`resize_map` and is cheaper before it.

    Returns
    -------
    dict[str, Tensor or CoarseMap]
        The resized maps by name.

    Raises
    ------
    ValueError
        If there are not four maps, or if a side is shorter than 2 patches and cannot be halved.

    Examples
    --------
    >>> levels = feature_pyramid([torch.zeros(1, 8, 5, 6)] * 4)
    >>> {level: tuple(feature.shape[2:]) for level, feature in levels.items()}
    {'res2': (20, 24), 'res3': (10, 12), 'res4': (5, 6), 'res5': (2, 3)}
    """
    if len(maps) != len(SCALES):
        raise ValueError(f"a pyramid needs {len(SCALES)} maps, got {len(maps)}")
    height, width = maps[0].shape[-2:]
    if min(height, width) < 2:
        raise ValueError(
            f"a pyramid needs maps of at least 2x2 patches, got {height}x{width}: use a larger "
            "image"
        )
    return {
        level: CoarseMap(feature, scale)
        if scale > 1 and not enlarge
        else resize_map(feature, scale)
        for feature, (level, scale) in zip(maps, SCALES.items())
    }


class PyramidBackbone(Backbone):
    """Base class of Detectron2 backbones whose output is a :func:`feature_pyramid`.

    ``forward`` has the keyword ``enlarge`` of that function.

    Attributes
    ----------
    embed_dim : int
        Channels of each map.
    patch_size : int
        Side of a patch in pixels.
    """

    embed_dim: int
    patch_size: int = PATCH_SIZE

    @property
    def size_divisibility(self) -> int:
        """Divisor of the sides of an image, so that res5 is exactly half of res4."""
        return self.output_shape()["res5"].stride

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the channels and strides (4, 8, 16, 32) of the pyramid.

        Returns
        -------
        dict[str, ShapeSpec]
            The shapes of res2 .. res5.

        Raises
        ------
        ValueError
            If the patches do not have 16 pixels.
        """
        if self.patch_size != PATCH_SIZE:
            raise ValueError(
                f"a pyramid of strides {', '.join(map(str, STRIDES.values()))} needs "
                f"patch_size={PATCH_SIZE}, got a backbone with {self.patch_size}: build it with "
                f"patch_size={PATCH_SIZE}; load_weights resamples the pretrained patch kernel"
            )
        return {
            level: ShapeSpec(channels=self.embed_dim, stride=stride)
            for level, stride in STRIDES.items()
        }
