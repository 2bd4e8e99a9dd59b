"""Validation of the module that a baseline is applied to."""

from torch import nn

from recyclelora.adapters import MergeableLinear


def check_module(module: object, *attributes: str) -> None:
    """Raise an error if a baseline cannot be applied to a module.

    Parameters
    ----------
    module : object
        The module.
    *attributes
        Names of the attributes that the module must have.

    Raises
    ------
    TypeError
        If ``module`` is not an ``nn.Module``, or lacks an attribute.
    ValueError
        If ``module`` is adapted already.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    lacking = [name for name in attributes if not hasattr(module, name)]
    if lacking:
        raise TypeError(
            f"module must be a ViT with {', '.join(attributes)}, got a {type(module).__name__} "
            f"without {', '.join(lacking)}"
        )
    if any(isinstance(child, MergeableLinear) for child in module.modules()):
        raise ValueError("the module is adapted already: adapt a model once")
