"""Whether a resumed training is the one that its checkpoint is of."""

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig

from recyclelora.common.validation import short_repr

# What makes a training the one it is: a checkpoint keeps it.
_SECTIONS = ("model", "optimizer", "schedule", "dataloader.train")
_KEYS = ("train.seed", "train.max_iter", "train.accumulate", "train.amp.dtype", "train.ema")
# Of those, what may change on the way, and takes effect; whoever changes it is told.
_MAY_CHANGE = re.compile(r"schedule\.iterations|train\.(?!seed).*")
# Where files are and how fast they are read changes nothing, nor does what is recomputed.
_FREE = {"images", "labels", "weights", "num_workers", "start_iteration", "checkpointing"}
_NOTHING = "nothing"


def run_settings(cfg: DictConfig) -> dict[str, Any]:
    """All that makes a training the one it is, by dotted key: plain values."""
    found = {}
    for key in (*_SECTIONS, *_KEYS):
        found.update(_values(key, _inside(cfg, key)))
    return {key: value for key, value in found.items() if key.rpartition(".")[2] not in _FREE}


def check_same_run(before: Mapping[str, Any] | None, cfg: DictConfig, *, source: str) -> list[str]:
    """What a resumed training does otherwise than the run that it goes on with.

    What the config leaves out and what it gives as the default that its target has are the same.

    Args:
        before: :func:`run_settings` of the run that wrote the checkpoint; None where that did not
            keep them yet, and nothing can be compared.
        cfg: of the resumed one.
        source: the checkpoint, for the message.

    Returns:
        A text ``key=value instead of value`` for each setting that may be changed on the way.

    Raises:
        ValueError: another setting differs: resumed so, the run would be neither this nor that.
    """
    if before is None:
        return []
    now, defaults = run_settings(cfg), {}
    for section in _SECTIONS:
        defaults.update(_defaults(section, _inside(cfg, section)))
    changes, refused = [], []
    # What others refer to (optimizer.lr) comes before them (optimizer.params.lr).
    for key in sorted({*before, *now}, key=lambda key: (key.count("."), key)):
        default = defaults.get(key, _NOTHING)
        old, new = before.get(key, default), now.get(key, default)
        if old != new:
            texts = changes if _MAY_CHANGE.fullmatch(key) else refused
            texts.append(f"{key}={_said(new)} instead of {_said(old)}")
    if refused:
        more = f" and {len(refused) - 1} more such" if len(refused) > 1 else ""
        raise ValueError(
            f"{source} cannot be resumed with {refused[0]}{more}: resume with what the run began "
            f"with, or begin another with its weights by train.init_checkpoint={source} and "
            "another train.output_dir"
        )
    return changes


def _said(value: Any) -> str:
    return _NOTHING if value is _NOTHING else short_repr(value)


def _inside(cfg: DictConfig, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _values(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """The leaves below ``node``."""
    if isinstance(node, Mapping):
        for name in node:
            yield from _values(f"{key}.{name}", node[name])
    elif isinstance(node, list | tuple | ListConfig):
        for i, item in enumerate(node):
            yield from _values(f"{key}.{i}", item)
    elif node is None or isinstance(node, bool | int | float | str):
        yield key, node
    else:  # a function or a class, by its name: where it is defined may change
        yield key, getattr(node, "__qualname__", type(node).__qualname__)


def _defaults(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """What the targets below ``node`` would take where it says nothing."""
    if isinstance(node, list | tuple | ListConfig):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        target = node["_target_"]
        target = locate(target) if isinstance(target, str) else target
        with contextlib.suppress(TypeError, ValueError):  # something in C
            for parameter in inspect.signature(target).parameters.values():
                if parameter.default is not parameter.empty:
                    yield from _values(f"{key}.{parameter.name}", parameter.default)
    for name in node:
        yield from _defaults(f"{key}.{name}", node[name])
