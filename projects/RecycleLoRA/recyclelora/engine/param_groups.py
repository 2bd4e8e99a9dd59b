"""Which parameter learns how fast: the published optimiser's rules as data.

A rule is a substring of parameter names with two multipliers. As in the published configuration,
the longest rule found in a name wins, and only where no rule is found do normalisation layers (by
type) get ``norm_decay_mult``. Biases outside normalisation layers decay like weights.
"""

from collections.abc import Mapping

import torch
from tabulate import tabulate
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from recyclelora.common.validation import check_number, short_repr

NORM_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)

PUBLISHED_RULES = {
    "lora_A_main": {"lr_mult": 1.0, "decay_mult": 0.0},
    "lora_B_main": {"lr_mult": 1.0, "decay_mult": 0.0},
    "lora_A_sub": {"lr_mult": 0.5, "decay_mult": 0.0},
    "lora_B_sub": {"lr_mult": 0.5, "decay_mult": 0.0},
    "backbone": {"lr_mult": 0.5, "decay_mult": 1.0},
    # The published code names these query_embed and level_embed; its pixel decoder's level encoding
    # has another name there and does decay, hence the longer names here.
    "predictor.query_embed": {"lr_mult": 1.0, "decay_mult": 0.0},
    "predictor.level_embed": {"lr_mult": 1.0, "decay_mult": 0.0},
    "norm": {"lr_mult": 1.0, "decay_mult": 0.0},
}
"""The rules of the paper's Table 8 and of the published configuration, for our parameter names."""

_FAMILIES = {
    "lora_A_main": "main adapter",
    "lora_B_main": "main adapter",
    "lora_A_sub": "sub adapter",
    "lora_B_sub": "sub adapter",
}


def parameter_groups(
    *,
    model: nn.Module,
    lr: float,
    weight_decay: float,
    rules: Mapping[str, Mapping[str, float]] = PUBLISHED_RULES,
    norm_decay_mult: float = 0.0,
) -> list[dict]:
    """Group the trainable parameters of ``model`` for ``torch.optim.AdamW``.

    Parameters that share a family (main adapter, sub adapter, backbone, head), a learning rate and
    a weight decay make one group, with the keys ``name``, ``params``, ``lr``, ``weight_decay``, and
    the values at iteration 0 that schedules scale: ``initial_lr``, ``initial_weight_decay``. Frozen
    and empty parameters (of an adapter of rank 0) are left out; a shared one counts once.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: nothing in the model is trainable, or a rule is not ``{lr_mult, decay_mult}``.

    Example:
        >>> from torch import nn
        >>> groups = parameter_groups(model=nn.Linear(2, 3), lr=1e-4, weight_decay=0.05)
        >>> [(g["name"], g["lr"], g["weight_decay"]) for g in groups]
        [('head', 0.0001, 0.05)]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    check_number("the learning rate", lr, most=1e3)
    check_number("the weight decay", weight_decay, most=1e3)
    for key, rule in rules.items():
        if not isinstance(rule, Mapping) or set(rule) - {"lr_mult", "decay_mult"}:
            raise ValueError(
                f"parameter rule {key!r} may hold lr_mult and decay_mult, got {short_repr(rule)}"
            )
        for name, factor in rule.items():
            check_number(f"{name} of the parameter rule {key!r}", factor, most=1e3)
    groups: dict[tuple, dict] = {}
    for name, parameter, owner in _trainable(model):
        rule = _longest_match(name, rules)
        if rule is not None:
            lr_mult = rules[rule].get("lr_mult", 1.0)
            decay_mult = rules[rule].get("decay_mult", 1.0)
        else:
            lr_mult = 1.0
            decay_mult = norm_decay_mult if isinstance(owner, NORM_LAYERS) else 1.0
        values = (lr * lr_mult, weight_decay * decay_mult)
        family = _FAMILIES.get(rule) or ("backbone" if name.startswith("backbone.") else "head")
        if family == "head" and decay_mult == 0:
            family = "head without decay"
        group = groups.setdefault(
            (family, *values),
            {
                "name": family,
                "params": [],
                "lr": values[0],
                "weight_decay": values[1],
                "initial_lr": values[0],
                "initial_weight_decay": values[1],
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ValueError(
            "the model has no trainable parameter: expected adapters or a head that require grad"
        )
    return list(groups.values())


def groups_table(optimizer: torch.optim.Optimizer) -> str:
    """A table of the optimiser's groups: learning rate, decay, tensors and parameters in each."""
    rows = [
        (
            g["name"],
            f"{g['initial_lr']:.3g}",
            f"{g['initial_weight_decay']:.3g}",
            len(g["params"]),
            f"{sum(p.numel() for p in g['params']):,}",
        )
        for g in optimizer.param_groups
    ]
    total = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    rows.append(("all", "", "", sum(r[3] for r in rows), f"{total:,}"))
    headers = ("group", "learning rate", "weight decay", "tensors", "parameters")
    align = ("left", "right", "right", "right", "right")
    return tabulate(rows, headers, tablefmt="simple", colalign=align, disable_numparse=True)


def _trainable(model: nn.Module):
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            trains = parameter.requires_grad and parameter.numel()
            if trains and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{name}" if prefix else name), parameter, module


def _longest_match(name: str, rules: Mapping[str, Mapping[str, float]]) -> str | None:
    # Equal lengths: the alphabetically first, as in the published constructor.
    return next((key for key in sorted(rules, key=lambda k: (-len(k), k)) if key in name), None)
