"""Which layers of a model get adapters, with which ranks, and which weights none can reach."""

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

LEAST_SIDE = 16  # smaller matrices are tokens and tables rather than weights of a product
# Last words of names of parameters that are added or looked up. Only their use tells them from the
# weight of a product: `positional_embedding` (77, 512) of CLIP is a table, `text_projection`
# (512, 512) beside it a weight. A word inside a name decides nothing: `token_mixing` is a weight.
TABLES = ("bias", "biases", "embed", "embedding", "embeddings", "table", "token", "tokens")
RELATIVE_POSITIONS = ("rel_pos_h", "rel_pos_w", "rel_pos_t")  # of MViT, ViTDet and SAM
NO_LINEARS = (
    *(nn.Embedding, nn.EmbeddingBag, _ConvNd),
    *(_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)
# Ends of the class names of other libraries' embeddings and norms, as `LayerNorm2d`.
NO_LINEAR_NAMES = re.compile(r"(embed|embeddings?|norm)(\dd)?$", re.IGNORECASE)

Patterns = str | Iterable[str] | None


def is_conv1d(module: nn.Module) -> bool:
    """Whether ``module`` is a ``Conv1D`` of Hugging Face: a linear layer with weight (in, out)."""
    names = ((kind.__module__, kind.__name__) for kind in type(module).__mro__)
    return ("transformers.pytorch_utils", "Conv1D") in names


def plain_weight(linear: nn.Module) -> Tensor:
    """The weight (out, in) of a linear layer or a ``Conv1D``, detached."""
    weight = linear.weight.detach()
    return weight.T if is_conv1d(linear) else weight


def is_out_of_reach(weight: Tensor) -> bool:
    """Whether a weight is quantised or distributed, so that it is no plain tensor."""
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
    """The linear layers to adapt by name, with their settings.

    Raises
    ------
    TypeError, ValueError
        If a pattern or a rank is invalid, or a pattern of ``include`` or ``ranks`` matches no
        module.
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
    """Whether one of the glob patterns matches a name."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def weights_out_of_reach(
    module: nn.Module,
    settings: AdapterSettings,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
) -> list[str]:
    """Names of matrices that act like linear layers but belong to no layer that is adapted.

    Those that ``include`` does not select, and those that ``exclude`` names, are left out: the
    caller decided on them.
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
    """The module that computes with the parameters of ``owner``, which may be parametrizations."""
    if not isinstance(owner, ParametrizationList):
        return owner
    return module.get_submodule(name.rpartition("parametrizations")[0].rstrip("."))


def _is_table(key: str, weight: Tensor) -> bool:
    """Whether a parameter is added or looked up: tokens, positions, relative position biases."""
    is_broadcast = weight.dim() == 3 and len(weight) == 1  # over the batch, as ViT's pos_embed
    last_word = key.lower().rpartition("_")[2]
    return is_broadcast or last_word in TABLES or key in RELATIVE_POSITIONS


def checked_patterns(name: str, patterns: Patterns) -> tuple[str, ...] | None:
    """One or several glob patterns as a tuple; None stays None."""
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
    """How to leave out every selected layer that is too small for its ranks, if ``name`` is one.

    It ends the sentence of the error for that layer, so that one call shows all such layers.
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
    return f", or leave out what is too small by exclude=[{known}]"
