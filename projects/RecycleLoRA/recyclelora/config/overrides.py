"""Command-line overrides ``key=value`` of a LazyConfig; keys that do not exist are refused."""

import difflib
from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyCall, LazyConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from recyclelora.common.validation import short_repr
from recyclelora.evaluation import multi_scale, native, paper, rein

from .walk import find_parameters, find_target, is_call, walk

# Keys whose value may be the name of a function that is called without arguments.
_NAMED = {
    "evaluation.protocol": {call.__name__: call for call in (paper, rein, multi_scale, native)}
}
# Of one override, in characters: the parser's time grows faster than the length.
_LONGEST = 5_000


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply ``key=value`` strings to ``cfg``, in place.

    A key exists if it is in the config or is an argument of the target above it. If a key occurs
    several times, the last value counts. The value of ``evaluation.protocol`` may be a name:
    ``evaluation.protocol=rein``, then ``evaluation.protocol.flip=True``.

    Returns
    -------
    DictConfig
        ``cfg``.

    Raises
    ------
    ValueError
        If an override has no ``=``, a value that cannot be parsed, more than 5,000 characters, or
        an unknown key; the message names the nearest known key.
    """
    for override in overrides:
        key, equals, _ = override.partition("=")
        if len(override) > _LONGEST:
            raise ValueError(
                f"expected overrides of at most {_LONGEST:,} characters, got {len(override):,} in "
                f"{short_repr(override)}: write long values into a config file"
            )
        if override.startswith("-"):
            raise ValueError(
                f"options stand before the overrides: move {short_repr(override)} forward"
            )
        if not equals or not key or key != key.strip():
            raise ValueError(
                f"expected an override of the form key=value, got {short_repr(override)}"
            )
        _check_known(cfg, key)
        try:
            # Interpolations are resolved when objects are built, so they follow an override of
            # the key that they refer to.
            cfg = LazyConfig.apply_overrides(cfg, [override])
        except Exception as error:  # the parser, OmegaConf and Detectron2 raise many types
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"cannot apply the override {short_repr(override)} ({short_repr(reason)}): "
                """a text with signs goes into quotes, as in 'key="a text"'"""
            ) from error
        if key in _NAMED:
            _call_by_name(cfg, key)
    return cfg


def _call_by_name(cfg: DictConfig, key: str) -> None:
    known, given = _NAMED[key], OmegaConf.select(cfg, key)
    if isinstance(given, DictConfig):
        return
    if given not in known:
        raise ValueError(f"{key} must be one of {', '.join(known)}, got {short_repr(given)}")
    OmegaConf.update(cfg, key, LazyCall(known[given])(), merge=False)


def _check_known(cfg: DictConfig, key: str) -> None:
    node, parents = cfg, []
    for part in key.split("."):
        known = _names_below(node)
        if part not in known:
            parent = ".".join(parents)
            raise ValueError(
                f"unknown key {short_repr(key)} in the config" + _nearest(cfg, key, known, parent)
            )
        parents.append(part)
        # An interpolation may refer to a key that only a later override sets.
        node = OmegaConf.select(node, part, throw_on_resolution_failure=False)


def _names_below(node: Any) -> list[str]:
    """The keys of ``node`` and the arguments of its target; none for a value."""
    if isinstance(node, list | ListConfig):
        return [str(i) for i in range(len(node))]
    if not isinstance(node, dict | DictConfig):
        return []
    names = [str(name) for name in node if name != "_target_"]
    if is_call(node):
        try:
            parameters = find_parameters(find_target(node, "")) or {}
        except ValueError:  # check_config reports the target
            return names
        names += [name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
    return names


def _nearest(cfg: DictConfig, key: str, siblings: list[str], parent: str) -> str:
    # Unresolved, so that an interpolation that leads nowhere does not hide the unknown key.
    nodes = walk(OmegaConf.to_container(cfg, resolve=False))
    known = [f"{above}.{name}".lstrip(".") for above, node in nodes for name in _names_below(node)]
    match = difflib.get_close_matches(key, sorted(set(known)), n=1, cutoff=0.5)
    if match:
        return f"; the nearest known key is {match[0]!r}"
    names = ", ".join(sorted(siblings)) or "nothing"
    return f"; known under {parent or 'the top level'!r}: {names}"
