"""Full fine-tuning of a backbone."""

import torch
from torch import nn

from recyclelora.adapters.dependencies import parameters_in_use

from .checks import check_module

IMAGE_SIZE = 512  # size of the image in the forward pass on the meta device


def fine_tune(module: nn.Module) -> nn.Module:
    """Train the parameters on which a backbone's features depend, and freeze the others.

    The others (in DINOv2 the final norm and the mask token) would never receive a gradient, but DDP
    would wait for one. A forward pass on the meta device finds them, for any backbone.

    Parameters
    ----------
    module : nn.Module
        A backbone that maps images (B, 3, H, W) to a tensor or to a dictionary of features.

    Returns
    -------
    nn.Module
        ``module``. Its weights and output are unchanged.

    Raises
    ------
    TypeError
        If ``module`` is not an ``nn.Module``.
    ValueError
        If the output depends on no parameter, or if ``module`` is adapted already.

    Examples
    --------
    >>> from recyclelora.backbone import dinov2_vit
    >>> backbone = fine_tune(dinov2_vit("s", patch_size=16, img_size=512))
    >>> [name for name, p in backbone.named_parameters() if not p.requires_grad]
    ['mask_token', 'norm.weight', 'norm.bias']
    """
    check_module(module)
    used = parameters_in_use(module, torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta"))
    if not used:
        raise ValueError(
            f"the output of this {type(module).__name__} depends on no parameter: nothing can be "
            "fine-tuned"
        )
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in used)
    return module
