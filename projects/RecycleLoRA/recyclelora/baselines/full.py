"""Full fine-tuning: the backbone itself learns."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .checks import check_module

IMAGE_SIZE = 512  # of the run of shapes below; nothing is computed


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
        >>> from recyclelora.backbone import dinov2_vits
        >>> backbone = fine_tune(dinov2_vits(patch_size=16, img_size=512))
        >>> [name for name, p in backbone.named_parameters() if not p.requires_grad]
        ['mask_token', 'norm.weight', 'norm.bias']
    """
    check_module(module)
    used = parameters_in_use(module)
    if not used:
        raise ValueError(
            f"the output of this {type(module).__name__} depends on no parameter: nothing can be "
            "fine-tuned"
        )
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in used)
    return module


def parameters_in_use(module: nn.Module) -> set[str]:
    """Names of the parameters that the output of ``module`` depends on."""
    # A twin without memory, not the module called with other parameters: checkpointed blocks are
    # called once more while the gradients are made.
    memo: dict[int, Tensor] = {id(p): nn.Parameter(_on_meta(p)) for p in module.parameters()}
    memo.update({id(b): _on_meta(b) for b in module.buffers()})
    twin = copy.deepcopy(module, memo)
    with torch.enable_grad():
        output = twin(torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta"))
        features = list(output.values()) if isinstance(output, Mapping) else [output]
        total = torch.stack([feature.float().sum() for feature in features]).sum()
    if not total.requires_grad:
        return set()
    names, parameters = zip(*twin.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}


def _on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")
