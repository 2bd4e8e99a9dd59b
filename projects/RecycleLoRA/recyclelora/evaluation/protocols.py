"""The protocols of the published tables, and ``native`` for other datasets."""

from .protocol import Protocol

_ONE = (1.0,)
_FROM_075 = (0.75, 1.0, 1.25, 1.5, 1.75)


def paper(
    crop: int = 512, scales: tuple[float, ...] = _ONE, flip: bool = False, batch: int = 4
) -> Protocol:
    """Return the protocol of RecycleLoRA and SoMA.

    For crops of 1024 it follows SoMA's configs: BDD100K is enlarged to 2048x1024, and the stride is
    683. Images of ACDC keep their size for both crops. Rein's config for crops of 1024 tests
    Cityscapes and ACDC in the same way.

    Parameters
    ----------
    crop : int
        The size of the windows, 512 or 1024.
    scales, flip, batch
        See :class:`Protocol`.

    Returns
    -------
    Protocol
        The protocol.
    """
    if crop not in (512, 1024):
        raise ValueError(
            f"protocol 'paper': crop must be 512 or 1024, as published, got {crop!r}; for another "
            "crop, use recyclelora.evaluation.Protocol or native"
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
    """Return Rein's protocol for crops of 512.

    Parameters
    ----------
    scales, flip, batch
        See :class:`Protocol`.

    Returns
    -------
    Protocol
        The protocol.
    """
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
    """Return SoMA's augmented test: every image at 0.75 to 1.75 times its size, also mirrored.

    Mapillary is halved first, as in :func:`paper`, but not resized to one size. The default scales
    are those of SoMA's config for EVA-02. For DINOv2 they start at 0.5: ``scales=[0.5,0.75,...]``.

    Parameters
    ----------
    crop : int
        The size of the windows.
    scales, flip, batch
        See :class:`Protocol`.

    Returns
    -------
    Protocol
        The protocol.
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
    """Return a protocol for other datasets: images keep their size or get a common long side.

    Parameters
    ----------
    long_side, mode, crop
        See :class:`Protocol`.
    stride : int, optional
        The stride of the windows; two thirds of the crop by default.
    scales, flip, argmax, batch
        See :class:`Protocol`.

    Returns
    -------
    Protocol
        The protocol.
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
    """Return two thirds of the crop: the published 341 for crops of 512 and 683 for 1024."""
    return round(crop * 2 / 3) if isinstance(crop, int) else 1  # Protocol raises the error
