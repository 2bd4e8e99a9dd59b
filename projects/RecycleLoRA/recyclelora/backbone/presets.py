"""The sizes of released vision transformers, and the released DINOv2 models."""

from typing import Any

from .vit import DinoVisionTransformer

VIT_S = {"embed_dim": 384, "depth": 12, "num_heads": 6}
VIT_B = {"embed_dim": 768, "depth": 12, "num_heads": 12}
VIT_L = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
VIT_G = {"embed_dim": 1536, "depth": 40, "num_heads": 24, "ffn_layer": "swiglu"}
SIZES = {"s": VIT_S, "b": VIT_B, "l": VIT_L, "g": VIT_G}


def dinov2_vit(size: str, *, registers: bool = False, **overrides: Any) -> DinoVisionTransformer:
    """Return a DINOv2 model of a released size, with random weights.

    The released models have patches of 14 pixels and images of 518 pixels. A segmentor needs
    ``patch_size=16, img_size=512``.

    Parameters
    ----------
    size : {"s", "b", "l", "g"}
        The size.
    registers : bool
        Whether the model has four register tokens.
    **overrides
        Arguments of :class:`DinoVisionTransformer` that differ from those of the released model.

    Returns
    -------
    DinoVisionTransformer
        The backbone.

    Raises
    ------
    ValueError
        If ``size`` is unknown.

    Examples
    --------
    >>> dinov2_vit("s", patch_size=16, img_size=512).embed_dim
    384
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    settings: dict[str, Any] = {"img_size": 518, "patch_size": 14, "init_values": 1.0}
    if registers:
        settings |= {
            "num_register_tokens": 4,
            "interpolate_antialias": True,
            "interpolate_offset": 0.0,
        }
    return DinoVisionTransformer(**settings | SIZES[size] | overrides)
