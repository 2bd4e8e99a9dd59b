"""Selection of the layers that get adapters, their ranks, and the weights that get none."""

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from .settings import AdapterSettings

LEAST_SIDE = 16  # smaller matrices are usually tokens or tables, not weights of a product
# Parameters whose names end in these words are added or looked up, not multiplied. Their shapes do
# not show this: in CLIP, `positional_embedding` (77, 512) is a table, but `text_projection`
# (512, 512) is a weight. Only the last word counts: `token_mixing` is a weight.
TABLES = ("bias", "biases", "embed", "embedding", "embeddings", "table", "token", "tokens")
RELATIVE_POSITIONS = ("rel_pos_h", "rel_pos_w", "rel_pos_t")  # of MViT, ViTDet and SAM
NO_LINEARS = (
    *(nn.Embedding, nn.EmbeddingBag, _ConvNd),
    *(_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)
# Class names of embeddings and norms in other libraries, such as `LayerNorm2d`.
NO_LINEAR_NAMES = re.compile(r"(embed|embeddings?|norm)(\dd)?$", re.IGNORECASE)

Patterns = str | Iterable[str] | None


def is_conv1d(module: nn.Module) -> bool:
    """Return whether a module is a Hugging Face ``Conv1D``, a linear layer with weight (in, out).

    Parameters
    ----------
    module : nn.Module
        The module.

    Returns
    -------
    bool
        True if it is a ``Conv1D``.
    """
    names = ((kind.__module__, kind.__name__) for kind in type(module).__mro__)
    return ("transformers.pytorch_utils", "Conv1D") in names


def plain_weight(linear: nn.Module) -> Tensor:
    """Return the weight of a linear layer or a ``Conv1D`` as (out, in).

    Parameters
    ----------
    linear : nn.Module
        The layer.

    Returns
    -------
    Tensor
        The weight, detached.
    """
    weight = linear.weight.detach()
    return weight.T if is_conv1d(linear) else weight


def is_out_of_reach(weight: Tensor) -> bool:
    """Return whether a weight is quantised or distributed, so that it cannot be adapted.

    Parameters
    ----------
    weight : Tensor
        The weight.

    Returns
    -------
    bool
        True if it is not a plain tensor.
    """
    if is_lazy(weight):
        return False
    return type(weight.data) is not Tensor or weight.is_quantized


def select_linears(
    module: nn.Module,
    settings: AdapterSettings,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    ranks: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, tuple[nn.Module, AdapterSettings]]:
    """Return the linear layers to adapt, with their settings.

    Parameters
    ----------
    module : nn.Module
        The model.
    settings : AdapterSettings
        Settings of layers that ``ranks`` does not match.
    include, exclude, ranks
        See :func:`adapt`.

    Returns
    -------
    dict[str, tuple[nn.Module, AdapterSettings]]
        The layer and its settings by name.

    Raises
    ------
    TypeError, ValueError
        If a pattern or a rank is invalid, if a pattern of ``include`` or ``ranks`` matches no
        module, or if one of ``exclude`` matches neither a module nor a parameter.
    """
    include, exclude = checked_patterns("include", include), checked_patterns("exclude", exclude)
    by_pattern = _ranks(settings, ranks)
    names = [name for name, _ in module.named_modules()]
    for pattern in [*(include or ()), *by_pattern]:
        if not any(matches(name, (pattern,)) for name in names):
            raise ValueError(
                f"the pattern {pattern!r} matches no module of this {type(module).__name__}: "
                "expected a name as in named_modules(), or a glob pattern such as 'blocks.*.qkv'"
            )
    names = [name for name, _ in module.named_modules(remove_duplicate=False)]
    names += [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for pattern in exclude or ():
        if not any(matches(name, (pattern,)) for name in names):
            raise ValueError(
                f"the pattern {pattern!r} of exclude matches no module and no parameter of this "
                f"{type(module).__name__}, so it excludes nothing: correct or remove it"
            )
    selected = {}
    for name, child in module.named_modules():
        chosen = settings
        for pattern, of_pattern in by_pattern.items():
            if matches(name, (pattern,)):
                chosen = of_pattern
        if (
            (isinstance(child, nn.Linear) or is_conv1d(child))
            and chosen.rank
            and (include is None or matches(name, include))
            and not matches(name, exclude or ())
            and not is_out_of_reach(child.weight)
        ):
            selected[name] = (child, chosen)
    return selected


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of the glob patterns matches a name.

    Parameters
    ----------
    name : str
        The name of a module or a parameter.
    patterns : Iterable[str]
        The patterns.

    Returns
    -------
    bool
        True if a pattern matches.
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def weights_out_of_reach(
    module: nn.Module,
    settings: AdapterSettings,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
) -> list[str]:
    """Return the names of matrices that act like linear layers but belong to no adapted layer.

    Weights that ``include`` does not select, and weights that ``exclude`` matches, are left out,
    because the caller excluded them on purpose.

    Parameters
    ----------
    module : nn.Module
        The model.
    settings : AdapterSettings
        Settings of the adapters.
    include, exclude : Patterns
        See :func:`adapt`.

    Returns
    -------
    list[str]
        Names as in ``named_parameters()``.
    """
    include, exclude = checked_patterns("include", include), checked_patterns("exclude", exclude)
    found = []
    least = max(LEAST_SIDE, settings.rank)
    for name, owner in module.named_modules():
        user = _user_of(module, name, owner)
        is_linear = isinstance(user, nn.Linear) or is_conv1d(user)
        is_other = isinstance(user, NO_LINEARS) or NO_LINEAR_NAMES.search(type(user).__name__)
        for key, weight in owner.named_parameters(recurse=False):
            full = f"{name}.{key}" if name else key
            names = (name, full)
            wanted = include is None or any(matches(n, include) for n in names)
            if not wanted or any(matches(n, exclude or ()) for n in names) or is_lazy(weight):
                continue
            if is_out_of_reach(weight):
                if weight.dim() >= 2:
                    found.append(full)
                continue
            is_matrix = weight.dim() in (2, 3) and min(weight.shape[-2:]) >= least
            if is_matrix and not (is_linear or is_other or _is_table(key, weight)):
                found.append(full)
    return found


def _user_of(module: nn.Module, name: str, owner: nn.Module) -> nn.Module:
    """Return the module that computes with the parameters of ``owner``."""
    if not isinstance(owner, ParametrizationList):
        return owner
    return module.get_submodule(name.rpartition("parametrizations")[0].rstrip("."))


def _is_table(key: str, weight: Tensor) -> bool:
    """Return whether a parameter (tokens, positions, position biases) is added or looked up."""
    is_broadcast = weight.dim() == 3 and len(weight) == 1  # over the batch, as ViT's pos_embed
    last_word = key.lower().rpartition("_")[2]
    return is_broadcast or last_word in TABLES or key in RELATIVE_POSITIONS


def checked_patterns(name: str, patterns: Patterns) -> tuple[str, ...] | None:
    """Return one or several glob patterns as a tuple.

    Parameters
    ----------
    name : str
        Name of the argument in error messages.
    patterns : Patterns
        A pattern, several patterns, or None.

    Returns
    -------
    tuple[str, ...] or None
        The patterns, or None if ``patterns`` is None.

    Raises
    ------
    TypeError
        If a pattern is not a string.
    """
    if patterns is None:
        return None
    is_one = isinstance(patterns, str) or not isinstance(patterns, Iterable)
    found = (patterns,) if is_one else tuple(patterns)
    for pattern in found:
        if not isinstance(pattern, str):
            raise TypeError(f"{name} must be one or several glob patterns (str), got {pattern!r}")
    return found


def _ranks(
    settings: AdapterSettings, ranks: Mapping[str, tuple[int, int]] | None
) -> dict[str, AdapterSettings]:
    by_pattern = {}
    if ranks is not None and not isinstance(ranks, Mapping):
        raise TypeError(f"ranks must map patterns to (r_main, r_sub), got {ranks!r}")
    for pattern, pair in (ranks or {}).items():
        if not isinstance(pattern, str) or not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(
                f"ranks must map patterns to (r_main, r_sub), got {pattern!r}: {pair!r}"
            )
        r_main, r_sub = pair
        by_pattern[pattern] = dataclasses.replace(settings, r_main=r_main, r_sub=r_sub)
    return by_pattern


def advice_on_small_layers(
    name: str, selected: Mapping[str, tuple[nn.Module, AdapterSettings]]
) -> str:
    """Return the end of the error message for a layer that is too small for its ranks.

    The text lists ``exclude`` patterns for all such layers, so that the user sees them in one call.

    Parameters
    ----------
    name : str
        Name of the layer for which the error is raised.
    selected : Mapping[str, tuple[nn.Module, AdapterSettings]]
        All selected layers with their settings.

    Returns
    -------
    str
        The text, or "" if the layer is large enough.
    """
    small = {
        n
        for n, (linear, own) in selected.items()
        if not is_lazy(linear.weight) and own.rank > min(linear.weight.shape)
    }
    if name not in small or name == "":
        return ""
    patterns: dict[str, None] = {}
    for each in small:
        *parents, last = each.split(".")
        stars = ".".join([*("*" if part.isdecimal() else part for part in parents), last])
        fits = (n for n in selected if n not in small and matches(n, (stars,)))
        patterns[each if any(fits) else stars] = None
    known = ", ".join(map(repr, sorted(patterns)))
    return f", or exclude the layers that are too small by exclude=[{known}]"
