"""Any vision transformer as a Detectron2 backbone, with a function for its feature maps."""

import os
from collections.abc import Callable, Sequence

import torch
from torch import nn

from recyclelora.adapters.dependencies import call_on_meta, unreached_linears
from recyclelora.common.state_dicts import join_names

from .pyramid import PATCH_SIZE, PyramidBackbone, feature_pyramid
from .vision_transformer import patch_grid


class AnyViT(PyramidBackbone):
    """A vision transformer of another library, with a pyramid ``res2`` .. ``res5`` of its maps.

    :func:`timm_vit` and :func:`hugging_face_vit` make one by name. A model of your own needs the
    function ``feature_maps``. The pyramid is as in :class:`DinoVisionTransformer`: the maps are
    resized by 4, 2, 1 and 1/2, so patches must have 16 pixels.

    When the backbone is built, a forward pass on the meta device checks the sizes of the maps and
    finds linear layers on which adapters would have no effect. Non-persistent buffers become
    persistent, so that a resumed run restores them from its checkpoint.

    Parameters
    ----------
    vit : nn.Module
        The model, which ``adapt`` changes in place. Its keys in the state dict begin with
        ``vit.``.
    feature_maps : Callable[[nn.Module, torch.Tensor], Sequence[torch.Tensor]]
        ``feature_maps(vit, images)`` returns four maps (B, dim, H / 16, W / 16) of the patch tokens
        for images (B, 3, H, W).
    img_size : int | Sequence[int]
        Size in pixels of the image in this forward pass, one number or (height, width).
    pretrained : Callable[[str | os.PathLike], nn.Module] | None
        ``pretrained(weights)`` returns a new ``vit`` with these weights. If None, ``load_weights``
        raises an error, and ``vit`` must already have its weights.

    Raises
    ------
    ValueError
        If the maps do not fit, or adapters would have no effect on some linear layers.

    Examples
    --------
    >>> class TwoBlocks(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.patches = nn.Conv2d(3, 8, 16, 16)
    ...         self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
    >>> def maps(vit, images):
    ...     first = vit.blocks[0](vit.patches(images).movedim(1, -1))
    ...     second = vit.blocks[1](first)
    ...     return [tokens.movedim(-1, 1) for tokens in (first, first, second, second)]
    >>> backbone = AnyViT(TwoBlocks(), maps, img_size=64)
    >>> {level: tuple(f.shape[1:]) for level, f in backbone(torch.zeros(1, 3, 64, 96)).items()}
    {'res2': (8, 16, 24), 'res3': (8, 8, 12), 'res4': (8, 4, 6), 'res5': (8, 2, 3)}
    """

    def __init__(
        self,
        vit: nn.Module,
        feature_maps: Callable[[nn.Module, torch.Tensor], Sequence[torch.Tensor]],
        *,
        img_size: int | Sequence[int] = 512,
        pretrained: Callable[[str | os.PathLike], nn.Module] | None = None,
    ):
        super().__init__()
        self.vit = vit
        self.feature_maps = feature_maps
        self.pretrained = pretrained
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        image = torch.empty(1, 3, height, width, device="meta")
        self.embed_dim = call_on_meta(self, image)["res4"].shape[1]
        _refuse_unreached(self, image)
        _save_every_buffer(vit)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        grid = patch_grid(images, PATCH_SIZE)
        maps = list(self.feature_maps(self.vit, images))
        if len({m.shape[1] for m in maps}) != 1 or any(m.shape[2:] != grid for m in maps):
            raise ValueError(
                f"feature_maps must give maps of {grid[0]}x{grid[1]} patches, equally many "
                f"channels in each, for an image of {images.shape[2]}x{images.shape[3]} pixels; "
                f"{type(self.vit).__name__} gave {', '.join(str(tuple(m.shape)) for m in maps)}: "
                f"only a plain transformer with patches of {PATCH_SIZE} pixels fits"
            )
        return feature_pyramid(maps)

    def load_pretrained(self, weights: str | os.PathLike) -> None:
        """Replace ``vit`` by the same model with these weights; called by :func:`load_weights`."""
        if self.pretrained is None:
            raise TypeError(
                f"this AnyViT cannot load weights by itself: load {os.fspath(weights)!r} into its "
                f"{type(self.vit).__name__} before, or give it a function pretrained(weights)"
            )
        vit = self.pretrained(weights)
        _save_every_buffer(vit)
        self.vit = vit


def _refuse_unreached(backbone: AnyViT, image: torch.Tensor) -> None:
    unreached = unreached_linears(backbone, image)
    if unreached:
        raise ValueError(
            f"adapters could not act on {len(unreached)} linear layers of "
            f"{type(backbone.vit).__name__} ({join_names(unreached, 3)}): the maps "
            "do not depend on them; remove heads and blocks that the maps do not need"
        )


def _save_every_buffer(module: nn.Module) -> None:
    saved = module.state_dict().keys()
    for name, buffer in list(module.named_buffers(remove_duplicate=False)):
        if name not in saved:
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner).register_buffer(leaf, buffer)
