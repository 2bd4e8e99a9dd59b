"""Full fine-tuning: the backbone itself learns."""

import torch
from torch import nn

from recyclelora.adapters.dependencies import parameters_in_use

from .checks import check_module

IMAGE_SIZE = 512  # of the pass of shapes; nothing is computed


def fine_tune(module: nn.Module) -> nn.Module:
    """Let every parameter of a backbone train that its features depend on, and freeze the others.

    The others (of DINOv2 the final norm and the mask token) would never get a gradient; frozen,
    they make neither the optimiser nor DDP wait for one. Which they are is found by a run on the
    meta device, so it holds for any backbone.

    Args:
        module: called with images (B, 3, H, W), it returns a tensor or features by name.

    Returns:
        ``module``, its weights and output unchanged.

    Raises:
        TypeError: ``module`` is no module.
        ValueError: the output depends on no parameter, or ``module`` is adapted already.

    Example:
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
