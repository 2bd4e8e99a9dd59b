"""Adapting a whole model: every linear layer becomes a dual-adapter layer, the rest is frozen."""

import warnings
from collections.abc import Mapping

from torch import nn

from .checks import check_linear
from .decomposition import initial_factors
from .layer import DualLoRALinear
from .settings import AdapterSettings


def adapt(
    module: nn.Module,
    r_main: int = 32,
    r_sub: int = 4,
    alpha: float = 1.0,
    init: str = "rrqr",
    sparse_a: bool = False,
) -> nn.Module:
    """Give every ``nn.Linear`` inside ``module`` a main and a sub adapter, and freeze the rest.

    The layers are replaced in place by :class:`DualLoRALinear`; a linear used in several places
    stays one layer. Every other parameter (biases, norms, tokens) gets requires_grad=False. All
    layers are checked before the first is changed. Those of equal shape are decomposed together,
    the largest first, to the same factors as alone. With both ranks 0 the layers are left alone
    and everything is frozen. On the meta device only shapes are made.

    One kind of linear is left as it is, frozen, with a warning: the ``out_proj`` of an
    ``nn.MultiheadAttention``, which reads its weight and never calls it, so adapters in it would
    be ignored. For the same reason ``nn.TransformerEncoderLayer`` is told not to use its fused
    inference path. Other linears that are read, not called, cannot be seen here;
    :func:`unreached_linears` finds them. Linears that share one weight tensor get adapters each.

    Parameters
    ----------
    module : nn.Module
        Any model, or an ``nn.Linear`` itself.
    r_main, r_sub, alpha, init, sparse_a
        As for :meth:`DualLoRALinear.from_linear`.

    Returns
    -------
    nn.Module
        ``module``; if it is itself an ``nn.Linear``, the layer that replaces it.

    Raises
    ------
    TypeError, ValueError
        One sentence, naming the layer, if a setting is out of range, ``module`` is adapted
        already, or a weight is too small for the ranks or holds NaN or Inf; nothing is changed.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    >>> model = adapt(model, r_main=4, r_sub=2)
    >>> sorted(name for name, p in model.named_parameters() if p.requires_grad)[:2]
    ['0.lora_A_main', '0.lora_A_sub']
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"adapt: module must be an nn.Module, got {type(module).__name__}")
    settings = AdapterSettings(r_main, r_sub, alpha, init, sparse_a)
    for name, child in module.named_modules():
        if isinstance(child, DualLoRALinear):
            check_linear(child, settings, _quoted(name))
    linears, unseen = find_linears(module)
    if settings.rank == 0:
        linears = {}
    elif unseen or not linears:
        _warn_unadapted(module, unseen)
    for name, linear in linears.items():
        check_linear(linear, settings, _quoted(name))

    module.requires_grad_(False)
    decomposed = initial_factors(
        linears, lambda linear: linear.weight.detach(), settings, description=f"adapting ({init})"
    )
    for name, factors in decomposed:
        linear = linears[name]
        layer = DualLoRALinear(linear.weight, linear.bias, factors, settings)
        module = replace_modules(module, {linear: layer.train(linear.training)})
    use_forward_of_linears(module)
    return module


def find_linears(module: nn.Module) -> tuple[dict[str, nn.Linear], list[str]]:
    """The linears that ``module`` calls, by name, and the names of those it only reads."""
    read_only = {m.out_proj for m in module.modules() if isinstance(m, nn.MultiheadAttention)}
    found = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear)}
    called = {name: linear for name, linear in found.items() if linear not in read_only}
    return called, [name for name in found if name not in called]


def replace_modules(module: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put each replacement wherever the original stands in ``module``; returns the new root."""
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                setattr(parent, name, replacements[child])
    return replacements.get(module, module)


def use_forward_of_linears(module: nn.Module) -> None:
    """Turn off the fused paths of ``torch.nn`` that read weights and would miss the adapters."""
    for child in module.modules():
        if isinstance(child, nn.TransformerEncoderLayer):
            child.activation_relu_or_gelu = 0  # what PyTorch sets where it has no fused path
        elif isinstance(child, nn.TransformerEncoder):
            child.use_nested_tensor = False


def _quoted(name: str) -> str:
    return f"layer {name!r}" if name else "this layer"


def _warn_unadapted(module: nn.Module, unseen: list[str]) -> None:
    if unseen:
        text = f"adapt leaves {', '.join(unseen)} without adapters: attention reads their weights"
    else:
        text = f"adapt found no nn.Linear in this {type(module).__name__}: it is only frozen"
    warnings.warn(text, stacklevel=3)
