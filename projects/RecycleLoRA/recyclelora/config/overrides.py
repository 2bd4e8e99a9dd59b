"""Command-line overrides ``key=value`` of a LazyConfig, which reject unknown keys."""

import copy
import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.config import LazyCall
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Sweep
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recyclelora.common.validation import short_repr
from recyclelora.evaluation import multi_scale, native, paper, rein

from .keys import join_names, replace_quoted_keys, split_override
from .walk import find_parameters, find_target, is_call

# Keys whose value may be the name of a function that is called without arguments.
_NAMED = {
    "evaluation.protocol": {call.__name__: call for call in (paper, rein, multi_scale, native)}
}
# Characters of one override. The time of the parser grows faster than the length.
_LONGEST = 5_000


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply ``key=value`` strings to a config in place.

    A key exists if it is in the config, or if it is an argument of the target above it. A name with
    characters other than letters, digits, ``_`` and ``-`` must be in quotes:
    ``dataloader.test.'streets night'=null``. The new value replaces the old one, even if it is a
    dictionary or list. The syntax of values is that of Hydra: ``3``, ``1e-4``, ``true``, ``null``,
    ``[1,2]``, ``{a:1}``, ``{'b c':1}``, ``${other.key}``, or a text. A text needs quotes only if it
    could be read as one of the others. If a key occurs several times, the last value counts. The
    value of ``evaluation.protocol`` may be a name: ``evaluation.protocol=rein``, then
    ``evaluation.protocol.flip=True``.

    Parameters
    ----------
    cfg : DictConfig
        The config.
    overrides : Sequence[str]
        The strings.

    Returns
    -------
    DictConfig
        ``cfg``.

    Raises
    ------
    ValueError
        If an override has no ``=``, a value that cannot be parsed, more than 5,000 characters, or
        an unknown key. The message names the nearest known key.
    """
    for override in overrides:
        if len(override) > _LONGEST:
            raise ValueError(
                f"expected overrides of at most {_LONGEST:,} characters, got {len(override):,} in "
                f"{short_repr(override)}: write long values into a config file"
            )
        if override.startswith("-"):
            raise ValueError(
                f"options must precede the overrides: move {short_repr(override)} forward"
            )
        names, text = split_override(override)
        parent, name = _find(cfg, names, override[: -len(text) - 1])
        try:
            # Interpolations are resolved when objects are built, so an override of the key to
            # which they refer changes them.
            parent[name] = _parse_value(text)
        except Exception as error:  # the parser and OmegaConf raise many types
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"cannot apply the override {short_repr(override)} ({short_repr(reason)}): "
                """put text with special characters in quotes, as in 'key="a text"'"""
            ) from error
        key = ".".join(names)
        if key in _NAMED:
            _call_by_name(cfg, key, override)
    return cfg


def _parse_value(text: str) -> Any:
    """Read a value in Hydra's grammar. Other values are text, unless they begin like a list."""
    in_brackets = text.lstrip().startswith(("[", "{"))
    plain, names = replace_quoted_keys(text) if in_brackets else (text, {})
    try:
        (parsed,) = OverridesParser.create().parse_overrides([f"value={plain}"])
        if not isinstance(parsed._value, Sweep):  # Hydra reads a=1,2 as a list of runs
            return _with_names(parsed.value(), names)
    except Exception:  # the parser raises many types
        if in_brackets or text.lstrip().startswith(("'", '"')):
            raise
    return text


def _with_names(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value whose plain keys are replaced by the original names."""
    if isinstance(value, dict):
        return {names.get(key, key): _with_names(item, names) for key, item in value.items()}
    return [_with_names(item, names) for item in value] if isinstance(value, list) else value


def _call_by_name(cfg: DictConfig, key: str, override: str) -> None:
    known, given = _NAMED[key], OmegaConf.select(cfg, key)
    if isinstance(given, DictConfig):
        return
    expected = f"{key} must be one of {', '.join(known)}"
    if isinstance(given, ListConfig):
        raise ValueError(f"cannot apply the override {short_repr(override)}: {expected}")
    if given not in known:
        raise ValueError(f"{expected}, got {short_repr(given)}")
    OmegaConf.update(cfg, key, LazyCall(known[given])(), merge=False)


def _find(cfg: DictConfig, names: Sequence[str], key: str) -> tuple[DictConfig | ListConfig, Any]:
    """Return the node that has, or may have, the key, and the last name as the node stores it."""
    node = cfg
    for depth, name in enumerate(names):
        known = _names_below(node)
        if name not in known:
            raise ValueError(
                f"unknown key {short_repr(key)} in the config"
                + _nearest(cfg, names, known, names[:depth])
            )
        parent, found = node, known[name]
        if depth + 1 < len(names):
            node = _child(parent, found)
    return parent, found


def _child(parent: DictConfig | ListConfig, name: Any) -> Any:
    if isinstance(parent, DictConfig) and name not in parent:
        return None  # an argument with its default
    try:
        child = parent[name]
    except OmegaConfBaseException:  # it may refer to a key that a later override sets
        return None
    if OmegaConf.is_interpolation(parent, name) and OmegaConf.is_config(child):
        parent[name] = copy.deepcopy(child)  # other keys may refer to it too
        return parent[name]
    return child


def _parameters(call: Any) -> dict[str, inspect.Parameter]:
    try:
        return find_parameters(find_target(call, "")) or {}
    except ValueError:  # check_config reports invalid targets
        return {}


def _names_below(node: Any) -> dict[str, Any]:
    """Return the keys of ``node`` and the arguments of its target, by their text."""
    if isinstance(node, list | ListConfig):
        return {str(i): i for i in range(len(node))}
    if not isinstance(node, dict | DictConfig):
        return {}
    parameters = _parameters(node).values() if is_call(node) else ()
    names = {p.name: p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    return {**names, **{str(name): name for name in node if name != "_target_"}}


def _nearest(
    cfg: DictConfig, names: Sequence[str], siblings: Sequence[str], parents: Sequence[str]
) -> str:
    # Unresolved, so that a broken interpolation does not hide the unknown key.
    known = {join_names(key) for key in _keys(OmegaConf.to_container(cfg, resolve=False))}
    match = difflib.get_close_matches(join_names(names), sorted(known), n=1, cutoff=0.5)
    if match:
        quotes = "" if "'" in match[0] else "'"
        return f"; the nearest known key is {quotes}{match[0]}{quotes}"
    known_names = ", ".join(sorted(join_names([name]) for name in siblings)) or "nothing"
    return f"; the keys of {join_names(parents) or 'the top level'!r} are: {known_names}"


def _keys(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return the names of all keys below a plain node."""
    for text, name in _names_below(node).items():
        yield (*above, text)
        inside = node[name] if isinstance(node, list) else node.get(name)
        yield from _keys(inside, (*above, text))
