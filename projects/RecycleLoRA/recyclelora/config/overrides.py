"""Command-line overrides ``key=value`` of a LazyConfig, refusing keys that do not exist."""

import difflib
import inspect
from collections.abc import Sequence

from detectron2.config import LazyCall, LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from recyclelora.common.validation import short_repr
from recyclelora.evaluation import multi_scale, native, paper, rein

# Where a name will do for a call without arguments; those can be given by further overrides.
_NAMED = {
    "evaluation.protocol": {call.__name__: call for call in (paper, rein, multi_scale, native)}
}
# Of one override, in characters: the parser's time grows faster than the text.
_LONGEST = 5_000


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply ``key=value`` strings to ``cfg``; a key stands there or is an argument of its target.

    Of several overrides of one key the last counts. ``evaluation.protocol`` may be a name:
    ``evaluation.protocol=rein``, then ``evaluation.protocol.flip=True``.

    Raises:
        ValueError: an override without ``=``, with a value that cannot be read, longer than 5,000
            characters, or of an unknown key; the message names the nearest known key.
    """
    for override in overrides:
        key, equals, _ = override.partition("=")
        if len(override) > _LONGEST:
            raise ValueError(
                f"expected overrides of at most {_LONGEST:,} characters, got {len(override):,} in "
                f"{short_repr(override)}: put what is long into a config file"
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
            # Interpolations are resolved when built, so overrides reach what refers to them.
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
    node, walked = cfg, []
    for part in key.split("."):
        known = _children(node)
        if part not in known:
            where = ".".join(walked)
            raise ValueError(
                f"unknown key {short_repr(key)} in the config" + _nearest(cfg, key, known, where)
            )
        walked.append(part)
        node = _child(node, part)


def _children(node) -> list[str]:
    """The keys below ``node``: those that stand there and the arguments of its target."""
    if isinstance(node, ListConfig):
        return [str(i) for i in range(len(node))]
    if not isinstance(node, DictConfig):
        return []
    return [str(k) for k in node if k != "_target_"] + _arguments(node.get("_target_"))


def _child(node, part: str):
    # Raw values: an interpolation may refer to something that only an override will set.
    if isinstance(node, ListConfig):
        return node._get_node(int(part))
    child = node._get_node(part) if part in node else None
    if child is not None and OmegaConf.is_interpolation(node, part):
        return node[part]
    return child


def _arguments(target) -> list[str]:
    if target is None:
        return []
    try:
        callable_ = locate(target) if isinstance(target, str) else target
        parameters = inspect.signature(callable_).parameters.values()
    except (
        ImportError,
        TypeError,
        ValueError,
    ):  # no signature: only what the config spells out
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in kinds]


def _nearest(cfg: DictConfig, key: str, siblings: list[str], where: str) -> str:
    prefix = f"{where}." if where else ""
    candidates = {prefix + name for name in siblings} | set(_all_keys(cfg))
    match = difflib.get_close_matches(key, sorted(candidates), n=1, cutoff=0.5)
    if match:
        return f"; the nearest known key is {match[0]!r}"
    names = ", ".join(sorted(siblings)) or "nothing"
    return f"; known under {where or 'the top level'!r}: {names}"


def _all_keys(node, prefix: str = ""):
    for name in _children(node):
        yield prefix + name
        child = _child(node, name)
        if isinstance(child, (DictConfig, ListConfig)):
            yield from _all_keys(child, f"{prefix}{name}.")
