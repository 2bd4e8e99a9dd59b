"""Adapt a whole model: linear layers become dual-adapter layers, the rest is frozen."""

import warnings
from collections.abc import Mapping

from torch import nn

from recyclelora.common.state_dicts import join_names

from .checks import check_linear
from .decomposition import initial_factors
from .layer import DualLoRALinear
from .selection import (
    Patterns,
    advice_on_small_layers,
    checked_patterns,
    is_conv1d,
    plain_weight,
    select_linears,
    weights_out_of_reach,
)
from .settings import AdapterSettings, Init


def adapt(
    module: nn.Module,
    r_main: int = 32,
    r_sub: int = 4,
    alpha: float = 1.0,
    init: Init = "rrqr",
    sparse_a: bool = False,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    ranks: Mapping[str, tuple[int, int]] | None = None,
) -> nn.Module:
    """Give every ``nn.Linear`` inside ``module`` a main and a sub adapter, and freeze the rest.

    The layers are replaced in place by :class:`DualLoRALinear`; a linear used in several places
    stays one layer. Every other parameter (biases, norms, tokens) gets requires_grad=False. All
    layers are validated and decomposed before the first layer is changed, for "rrqr" on the CPU one
    layer a thread; the factors are those of a separate decomposition. With both ranks 0 no layer is
    replaced and every parameter is frozen. On the meta device only shapes are computed.

    ``Conv1D`` of Hugging Face is adapted too. One warning names the weights that no adapter
    reaches: matrices that belong to no linear layer (``in_proj_weight`` of attention, stacked
    experts), and quantised or distributed tensors. Layers that the forward pass does not use are
    adapted too; :func:`unreached_linears` finds them. Layers that share one weight tensor get
    separate adapters.

    Parameters
    ----------
    module : nn.Module
        Any model, or an ``nn.Linear`` itself.
    r_main, r_sub, alpha, init, sparse_a
        As for :meth:`DualLoRALinear.from_linear`.
    include, exclude : str or iterable of str, optional
        Glob patterns on module names, as in ``named_modules()``: which linears to adapt (default:
        all), and which not to adapt. The warning does not name weights that ``exclude`` matches.
    ranks : mapping of str to (int, int), optional
        Ranks (r_main, r_sub) of the layers that a glob pattern matches; the last match wins. A
        layer with both ranks 0 is not replaced.

    Returns
    -------
    nn.Module
        ``module``; if it is itself an ``nn.Linear``, the layer that replaces it.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range, if a pattern matches nothing, if ``module`` is adapted
        already, or if a weight is too small for the ranks or contains NaN or Inf. The message names
        the layer; for weights that are too small, it also lists patterns for ``exclude``.
        ``module`` is unchanged.

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
    # The patterns are needed twice, but an iterator can be read only once.
    include, exclude = checked_patterns("include", include), checked_patterns("exclude", exclude)
    for name, child in module.named_modules():
        if isinstance(child, DualLoRALinear):
            check_linear(child, settings, _quoted(name))
    selected = select_linears(module, settings, include=include, exclude=exclude, ranks=ranks)
    for name, (linear, own) in selected.items():
        try:
            check_linear(linear, own, _quoted(name))
        except ValueError as error:
            raise ValueError(f"{error}{advice_on_small_layers(name, selected)}") from None
    linears = {name: linear for name, (linear, _) in selected.items()}
    settings_of = {name: own for name, (_, own) in selected.items()}
    decomposed = initial_factors(linears, plain_weight, settings_of, description="adapting")
    if settings.rank or ranks:
        missed = weights_out_of_reach(module, settings, include=include, exclude=exclude)
        _warn_unadapted(module, bool(selected), missed)

    module.requires_grad_(False)
    for name, factors in decomposed:
        linear = linears[name]
        layer = DualLoRALinear.from_factors(linear, factors, settings_of[name])
        module = replace_modules(module, {linear: layer})
    return module


def find_linears(module: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of a module, including ``Conv1D`` of Hugging Face.

    Parameters
    ----------
    module : nn.Module
        The module.

    Returns
    -------
    dict[str, nn.Module]
        The layers by name.
    """
    return {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear) or is_conv1d(m)}


def replace_modules(module: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Replace layers at every place where they occur in a module.

    Parameters
    ----------
    module : nn.Module
        The module, which changes in place.
    replacements : Mapping[nn.Module, nn.Module]
        The new layer for each old layer.

    Returns
    -------
    nn.Module
        ``module``, or its replacement if it is itself replaced.
    """
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                setattr(parent, name, replacements[child])
                if type(parent).__name__ == "OptimizedModule":
                    parent._initialize()  # otherwise torch.compile uses the replaced module
    return replacements.get(module, module)


def _quoted(name: str) -> str:
    return f"layer {name!r}" if name else "this layer"


def _warn_unadapted(module: nn.Module, has_adapters: bool, out_of_reach: list[str]) -> None:
    kind = type(module).__name__
    if out_of_reach:
        text = (
            f"adapt cannot reach {len(out_of_reach)} weights of this {kind}, which are frozen: "
            f"{join_names(out_of_reach, limit=3)}; pass exclude=... to confirm that they stay "
            "without adapters"
        )
    elif not has_adapters:
        text = f"adapt found no nn.Linear in this {kind}: it only froze the parameters"
    else:
        return
    warnings.warn(text, stacklevel=3)
