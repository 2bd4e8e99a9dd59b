"""Check whether a resumed run has the settings of the run that wrote its checkpoint."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recyclelora.common.validation import short_repr

from .objects import as_calls, object_name
from .walk import find_parameters, find_target, is_call, is_list, walk

# The settings that determine a training. Checkpoints contain them.
_SECTIONS = ("model", "optimizer", "schedule", "dataloader.train")
_KEYS = (
    "train.seed", "train.max_iter", "train.accumulate", "train.amp.dtype", "train.ema",
    "train.compile",
)  # fmt: skip
# Settings among them that may change when a run resumes. The log lists the changes.
_MAY_CHANGE = re.compile(r"schedule\.iterations|train\.(?!seed).*")
# These do not change results: paths, the speed of reading, and recomputation.
_FREE = {"images", "labels", "weights", "num_workers", "start_iteration", "checkpointing"}
# The same for an evaluation. Its weights have a digest, and its images may be elsewhere.
_FREE_IN_EVALUATION = {"weights", "num_workers", "checkpointing"}
_NOTHING = "nothing"


def run_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that determine a training.

    Parameters
    ----------
    cfg : DictConfig
        The config.

    Returns
    -------
    dict[str, Any]
        Plain values by dotted key.
    """
    return {
        key: value
        for section in (*_SECTIONS, *_KEYS)
        for key, value in _leaves(section, OmegaConf.select(cfg, section))
        if key.rpartition(".")[2] not in _FREE
    }


def evaluation_settings(key: str, node: Any) -> dict[str, Any]:
    """Return the settings below a node of a config that determine an evaluation.

    Parameters
    ----------
    key : str
        The dotted key of the node.
    node : Any
        A node of a config.

    Returns
    -------
    dict[str, Any]
        Plain values by dotted key.

    Examples
    --------
    >>> evaluation_settings("model", {"hidden_dim": 32, "weights": "a.pth"})
    {'model.hidden_dim': 32}
    """
    return {
        name: value
        for name, value in _leaves(key, node)
        if name.rpartition(".")[2] not in _FREE_IN_EVALUATION
    }


def check_same_run(before: Mapping[str, Any] | None, cfg: DictConfig, *, source: str) -> list[str]:
    """Compare a config with the settings in the checkpoint from which it resumes.

    A missing setting equals the default of its target.

    Parameters
    ----------
    before : mapping or None
        The result of :func:`run_settings` for the run that wrote the checkpoint. None if the
        checkpoint has no settings; nothing is then compared.
    cfg : DictConfig
        The config of the resumed run.
    source : str
        The checkpoint's file, for the error message.

    Returns
    -------
    list of str
        ``key=value instead of value`` for each changed setting that is allowed to change.

    Raises
    ------
    ValueError
        If another setting has changed.
    """
    if before is None:
        return []
    now, defaults = run_settings(cfg), {"train.compile": False}  # older checkpoints lack it
    for section in _SECTIONS:
        defaults.update(_defaults(section, OmegaConf.select(cfg, section)))
    changes, refused = [], []
    # Fewer dots first: optimizer.params.lr refers to optimizer.lr.
    for key in sorted({*before, *now}, key=lambda key: (key.count("."), key)):
        default = defaults.get(key, _NOTHING)
        old, new = before.get(key, default), now.get(key, default)
        if key.endswith("._target_"):  # a name with or without its module
            old, new = (str(name).rpartition(".")[2] for name in (old, new))
        if old != new:
            texts = changes if _MAY_CHANGE.fullmatch(key) else refused
            texts.append(f"{key}={_text(new)} instead of {_text(old)}")
    if refused:
        others = len(refused) - 1
        more = f" and {others} more change{'s' * (others > 1)}" if others else ""
        raise ValueError(
            f"{source} cannot be resumed with {refused[0]}{more}: resume with the original "
            f"settings, or start a new run from its weights with train.init_checkpoint={source} "
            "and another train.output_dir"
        )
    return changes


def _text(value: Any) -> str:
    return _NOTHING if value is _NOTHING else short_repr(value)


def _leaves(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(node) and not isinstance(node, type):  # a default
        node = OmegaConf.create({"": node}, flags={"allow_objects": True})
        node = as_calls(node, key)[""]
    for name, value in walk(node, key):
        if not isinstance(value, Mapping) and not is_list(value):
            # A function or a class: its name without its module, which may change.
            yield name, object_name(value)


def _defaults(section: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Return the defaults of all targets below ``node``."""
    for key, call in walk(node, section):
        if is_call(call):
            for name, parameter in (find_parameters(find_target(call, key)) or {}).items():
                if parameter.default is not parameter.empty:
                    yield from _leaves(f"{key}.{name}", parameter.default)
