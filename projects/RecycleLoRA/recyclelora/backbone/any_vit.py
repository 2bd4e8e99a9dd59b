"""Any vision transformer as a Detectron2 backbone, with a function for its feature maps."""

import os
from collections.abc import Callable, Sequence

import torch
from torch import nn

from recyclelora.adapters.dependencies import call_on_meta, unreached_linears
from recyclelora.common.state_dicts import join_names

from .pyramid import PATCH_SIZE, CoarseMap, PyramidBackbone, feature_pyramid
from .vision_transformer import patch_grid


class AnyViT(PyramidBackbone):
    """Any vision transformer as a Detectron2 backbone with the features ``res2`` .. ``res5``.

    :func:`timm_vit` and :func:`hugging_face_vit` make one by name. For your own model, write the
    function ``feature_maps``. The pyramid is as in :class:`DinoVisionTransformer`: the maps are
    resized by 4, 2, 1 and 1/2, so patches must have 16 pixels.

    When the backbone is built, a forward pass on the meta device checks the sizes of the maps and
    finds linear layers on which adapters would have no effect. Non-persistent buffers become
    persistent, so that a resumed run restores them from its checkpoint.

    Parameters
    ----------
    vit : nn.Module
        The model, which ``adapt`` changes in place. Its keys in the state dict begin with ``vit.``.
    feature_maps : Callable[[nn.Module, torch.Tensor], Sequence[torch.Tensor]]
        ``feature_maps(vit, images)`` returns four maps (B, dim, H / 16, W / 16) of the patch tokens
        for images (B, 3, H, W).
    img_size : int or Sequence[int]
        Size in pixels of the image in this forward pass, one number or (height, width).
    pretrained : Callable[[str or PathLike], nn.Module], optional
        ``pretrained(weights)`` returns a new ``vit`` with these weights. If None, ``load_weights``
        raises an error, and ``vit`` must already have its weights.

    Raises
    ------
    ValueError
        If the maps do not fit, or if adapters would have no effect on some linear layers.

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

    def forward(
        self, images: torch.Tensor, *, enlarge: bool = True
    ) -> dict[str, torch.Tensor | CoarseMap]:
        """Compute the feature pyramid.

        Parameters
        ----------
        images : Tensor
            Images (B, 3, H, W).
        enlarge : bool
            See :func:`feature_pyramid`.

        Returns
        -------
        dict[str, Tensor or CoarseMap]
            The maps res2 .. res5.

        Raises
        ------
        ValueError
            If ``feature_maps`` returns maps of a wrong shape.
        """
        grid = patch_grid(images, PATCH_SIZE)
        maps = list(self.feature_maps(self.vit, images))
        if len({m.shape[1] for m in maps}) != 1 or any(m.shape[2:] != grid for m in maps):
            raise ValueError(
                f"feature_maps must return maps of {grid[0]}x{grid[1]} patches, all with the same "
                f"channels, for an image of {images.shape[2]}x{images.shape[3]} pixels, got "
                f"{', '.join(str(tuple(m.shape)) for m in maps)} of {type(self.vit).__name__}: "
                f"use a plain transformer with patches of {PATCH_SIZE} pixels"
            )
        return feature_pyramid(maps, enlarge=enlarge)

    def load_pretrained(self, weights: str | os.PathLike) -> None:
        """Replace ``vit`` with the same model with pretrained weights.

        :func:`load_weights` calls this method.

        Parameters
        ----------
        weights : str or PathLike
            A path, or "pretrained".

        Raises
        ------
        TypeError
            If the backbone has no function ``pretrained``.
        """
        if self.pretrained is None:
            raise TypeError(
                f"this AnyViT has no function to load weights: load {os.fspath(weights)!r} into "
                f"its {type(self.vit).__name__} first, or pass a function pretrained(weights)"
            )
        vit = self.pretrained(weights)
        _save_every_buffer(vit)
        self.vit = vit


def _refuse_unreached(backbone: AnyViT, image: torch.Tensor) -> None:
    unreached = unreached_linears(backbone, image)
    if unreached:
        raise ValueError(
            f"adapters would have no effect on {len(unreached)} linear layers of "
            f"{type(backbone.vit).__name__} ({join_names(unreached, 3)}), on which the maps do "
            "not depend: remove heads and blocks that the maps do not need"
        )


def _save_every_buffer(module: nn.Module) -> None:
    saved = module.state_dict().keys()
    for name, buffer in list(module.named_buffers(remove_duplicate=False)):
        if name not in saved:
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner).register_buffer(leaf, buffer)
