"""A check that adapters work on a backbone that contains a ViT of another library."""

import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters


def assert_adapts(
    backbone: nn.Module,
    again: nn.Module,
    before: dict[str, torch.Tensor],
    images: torch.Tensor,
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Restore a copy from the meta device exactly, and adapt it; all adapters get a gradient.

    Parameters
    ----------
    again : nn.Module
        The same model built on the meta device; it gets the backbone's state.
    before : dict[str, torch.Tensor]
        The backbone's features of ``images``.

    Returns
    -------
    main, sub : dict[str, nn.Parameter]
        Parameters of the main and the sub adapters.
    """
    again.load_state_dict(backbone.state_dict(), assign=True)
    for level, feature in before.items():
        assert torch.equal(again(images)[level], feature)
    adapted = adapt(backbone, r_main=4, r_sub=2)
    features = adapted(images)
    for level, feature in before.items():
        scale = feature.abs().max().item()
        torch.testing.assert_close(features[level], feature, atol=1e-5 * scale, rtol=0)
    main, sub = adapter_parameters(adapted)
    sum(level.square().sum() for level in features.values()).backward()
    for parameter_name, parameter in (main | sub).items():
        assert parameter.grad.abs().sum() > 0, parameter_name
    return main, sub
