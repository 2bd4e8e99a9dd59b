"""Parameter groups of the optimiser: learning rates and weight decays by parameter name.

A rule consists of a substring of parameter names and two multipliers. As in the published
configuration, the longest matching rule applies to a parameter. Parameters of normalisation layers
without a matching rule get ``norm_decay_mult``. The biases of other layers decay like weights.
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
    # The published code calls these query_embed and level_embed. Its pixel decoder has a level
    # encoding with another name, which decays. The longer names here match only the predictor.
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

    Parameters of the same family (main adapter, sub adapter, backbone, head) with the same learning
    rate and weight decay form one group. The keys of a group are ``name``, ``params``, ``lr``,
    ``weight_decay``, and the initial values that schedules scale: ``initial_lr`` and
    ``initial_weight_decay``. Frozen and empty parameters are excluded. A shared parameter counts
    once.

    Parameters
    ----------
    model : nn.Module
        The model.
    lr, weight_decay : float
        The values for parameters that no rule matches.
    rules : Mapping
        Dicts ``{"lr_mult": float, "decay_mult": float}``, whose keys are both optional, by
        substring of parameter names.
    norm_decay_mult : float
        The multiplier of the weight decay for normalisation layers that no rule matches.

    Returns
    -------
    list of dict
        The groups.

    Raises
    ------
    TypeError
        If ``model`` is not a module.
    ValueError
        If no parameter is trainable, or if a rule or number is invalid.

    Examples
    --------
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
    for name, parameter in model.named_parameters():
        if not (parameter.requires_grad and parameter.numel()):
            continue
        key = _longest_match(name, rules)
        rule = {} if key is None else rules[key]
        decay_mult = rule.get("decay_mult", 1.0)
        if key is None and isinstance(_owner(model, name), NORM_LAYERS):
            decay_mult = norm_decay_mult
        values = {"lr": lr * rule.get("lr_mult", 1.0), "weight_decay": weight_decay * decay_mult}
        family = _FAMILIES.get(key) or ("backbone" if name.startswith("backbone.") else "head")
        if family == "head" and decay_mult == 0:
            family = "head without decay"
        initial = {f"initial_{key}": value for key, value in values.items()}
        group = {"name": family, "params": [], **values, **initial}
        groups.setdefault((family, *values.values()), group)["params"].append(parameter)
    if not groups:
        raise ValueError(
            "the model has no trainable parameter: expected adapters or a head that require grad"
        )
    return list(groups.values())


def groups_table(optimizer: torch.optim.Optimizer) -> str:
    """Return a table of the optimiser's groups with the number of parameters in each.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser.

    Returns
    -------
    str
        The table.
    """
    rows, tensors, total = [], 0, 0
    for group in optimizer.param_groups:
        count = sum(parameter.numel() for parameter in group["params"])
        values = (f"{group[key]:.3g}" for key in ("initial_lr", "initial_weight_decay"))
        rows.append((group["name"], *values, len(group["params"]), f"{count:,}"))
        tensors += len(group["params"])
        total += count
    rows.append(("all", "", "", tensors, f"{total:,}"))
    headers = ("group", "learning rate", "weight decay", "tensors", "parameters")
    align = ("left", "right", "right", "right", "right")
    return tabulate(rows, headers, tablefmt="simple", colalign=align, disable_numparse=True)


def _owner(model: nn.Module, name: str) -> nn.Module:
    """Return the module that owns the parameter."""
    return model.get_submodule(name.rpartition(".")[0])


def _longest_match(name: str, rules: Mapping[str, Mapping[str, float]]) -> str | None:
    # Among rules of equal length the alphabetically first applies, as in the published code.
    return next((key for key in sorted(rules, key=lambda k: (-len(k), k)) if key in name), None)
