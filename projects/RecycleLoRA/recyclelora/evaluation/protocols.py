"""The protocols by name: those of the published tables, and one for everything else."""

from .protocol import Protocol

_ONE = (1.0,)
_FROM_075 = (0.75, 1.0, 1.25, 1.5, 1.75)


def paper(
    crop: int = 512, scales: tuple[float, ...] = _ONE, flip: bool = False, batch: int = 4
) -> Protocol:
    """The sizes of RecycleLoRA and SoMA, those of SoMA's configs for crops of 1024 too.

    There BDD100K is enlarged to 2048x1024, and the windows are 683 apart. ACDC is seen at its own
    size at both crops. Rein's config for crops of 1024 tests Cityscapes and ACDC alike.
    """
    if crop not in (512, 1024):
        raise ValueError(
            f"protocol 'paper': crop must be 512 or 1024, as published, got {crop!r}; for another "
            "use recyclelora.evaluation.Protocol or native"
        )
    large = (2048, 1024)
    return Protocol(
        name="paper",
        sizes={
            "cityscapes": large,
            "bdd100k": (1280, 720) if crop == 512 else large,
            "mapillary_vistas": large,
            "acdc": (1920, 1080),
        },
        halve=("mapillary_vistas",),
        only_listed=True,
        crop=crop,
        stride=_stride(crop),
        scales=scales,
        flip=flip,
        batch=batch,
    )


def rein(scales: tuple[float, ...] = _ONE, flip: bool = False, batch: int = 4) -> Protocol:
    """The sizes of Rein at crops of 512."""
    return Protocol(
        name="rein",
        sizes={
            "cityscapes": (1024, 512),
            "bdd100k": (1280, 720),
            "mapillary_vistas": (1024, 512),
            "acdc": (960, 540),
        },
        halve=("mapillary_vistas",),
        only_listed=True,
        scales=scales,
        flip=flip,
        batch=batch,
    )


def multi_scale(
    crop: int = 512, scales: tuple[float, ...] = _FROM_075, flip: bool = True, batch: int = 4
) -> Protocol:
    """SoMA's augmented test: every image in 0.75 to 1.75 of its own size, each mirrored too.

    Mapillary is halved before, as in ``paper``, but not resized to one size. These scales are
    those of SoMA's config for EVA-02; for DINOv2 it begins with 0.5: ``scales=[0.5,0.75,...]``.
    """
    return Protocol(
        name="multi_scale",
        halve=("mapillary_vistas",),
        crop=crop,
        stride=_stride(crop),
        scales=scales,
        flip=flip,
        batch=batch,
    )


def native(
    long_side: int | None = None,
    mode: str = "whole",
    crop: int = 512,
    stride: int | None = None,
    scales: tuple[float, ...] = _ONE,
    flip: bool = False,
    argmax: str = "label",
    batch: int = 4,
) -> Protocol:
    """Every set at its images' own size, or at ``long_side``: for small sets and the demo.

    ``stride`` is two thirds of the crop unless given.
    """
    return Protocol(
        name="native",
        long_side=long_side,
        mode=mode,
        crop=crop,
        stride=_stride(crop) if stride is None else stride,
        scales=scales,
        flip=flip,
        argmax=argmax,
        batch=batch,
    )


def _stride(crop: int) -> int:
    """Two thirds of the crop, rounded: 341 and 683, as published for crops of 512 and 1024."""
    return round(crop * 2 / 3) if isinstance(crop, int) else 1  # Protocol will refuse the crop
