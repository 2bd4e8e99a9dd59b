"""A config checked as a whole before anything is built: what is missing, unknown, or no number."""

import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recyclelora.common.validation import check_integer, short_repr
from recyclelora.data import CLASSES
from recyclelora.evaluation.predictions import check_format

SECTIONS = ("train", "model", "optimizer", "schedule", "dataloader", "evaluation")

# Every key of the section train: least and most for whole numbers, else the type.
_TRAIN: dict[str, Any] = {
    "output_dir": str,
    "seed": (0, 2**32 - 1),
    "max_iter": (1, 10**9),
    "device": str,
    "amp": Mapping,
    "checkpointing": bool,
    "accumulate": (1, 10**4),
    "ema": float | Mapping | None,
    "skip_bad_batches": (0, 10**9),
    "init_checkpoint": str | None,
    "checkpoint_period": (0, 10**9),
    "checkpoints_kept": (1, 10**9),
    "eval_period": (0, 10**9),
    "picture_period": (0, 10**9),
    "log_period": (1, 10**9),
}
_EVALUATION = ("protocol", "save_predictions")
_GIVEN_BY_THE_RUN = ("optimizer.params.model",)


def check_config(cfg: DictConfig) -> None:
    """Raise one sentence for the first thing in ``cfg`` that no run could use.

    Every ``_target_`` has to exist, and its arguments have to be there, known, and of the types
    that its annotations ask for. Whether a number makes sense is left to whoever takes it.

    Raises:
        ValueError: it names the key.
    """
    try:
        _check_train(cfg.train)
        for key in ("model", "optimizer", "schedule"):
            _check_call(key, cfg[key])
        if (classes := cfg.model.get("num_classes", len(CLASSES))) != len(CLASSES):
            raise ValueError(
                f"model.num_classes must be {len(CLASSES)}, the classes of every dataset here, got "
                f"{short_repr(classes)}; a set that labels fewer has a folding"
            )
        for section, key in (("dataloader", "train"), ("evaluation", "protocol")):
            _check_call(f"{section}.{key}", _inside(cfg, section, key))
        _check_evaluation(cfg.evaluation)
        if cfg.dataloader.train.get("iterations") is not None:
            raise ValueError(
                "dataloader.train.iterations must be null: train.max_iter says how long"
            )
        domains = _inside(cfg, "dataloader", "test")
        if not isinstance(domains, DictConfig) or not any(domains.values()):
            raise ValueError(
                f"dataloader.test must name at least one domain with its loader, got "
                f"{short_repr(domains)}: see configs/demo.py"
            )
        for name, loader in domains.items():
            if loader is not None:
                _check_call(f"dataloader.test.{name}", loader)
    except OmegaConfBaseException as error:
        raise ValueError(
            f"the config cannot be resolved ({str(error).splitlines()[0]}); correct what refers "
            "there"
        ) from error


def _inside(cfg: DictConfig, section: str, key: str) -> Any:
    if not isinstance(cfg[section], DictConfig) or key not in cfg[section]:
        raise ValueError(
            f"{section} must be a section with {key!r}, got {short_repr(cfg[section])}: see "
            "configs/demo.py"
        )
    return cfg[section][key]


def _check_train(train: Any) -> None:
    if not isinstance(train, DictConfig):
        raise ValueError(
            f"train must be a section, got {short_repr(train)}: see configs/common/train.py"
        )
    for key, wanted in _TRAIN.items():
        if key not in train:
            raise ValueError(f"the config lacks train.{key}: see configs/common/train.py")
        if isinstance(wanted, tuple):
            check_integer(f"train.{key}", train[key], least=wanted[0], most=wanted[1])
        else:
            _check_value(f"train.{key}", train[key], wanted)
    if not train.output_dir.strip():
        raise ValueError("train.output_dir must name a folder, got nothing: give it a name")
    _check_value("train.amp.dtype", train.amp.get("dtype"), str)


def _check_evaluation(evaluation: DictConfig) -> None:
    if unknown := [key for key in evaluation if key not in _EVALUATION]:
        raise ValueError(
            f"the config has evaluation.{unknown[0]}, which is unknown: the section has "
            f"{' and '.join(_EVALUATION)}, see configs/demo.py"
        )
    check_format("evaluation.save_predictions", evaluation.get("save_predictions"))


def _check_call(key: str, node: Any) -> None:
    """``node`` has to be a call whose arguments fit."""
    if not _is_call(node):
        raise ValueError(
            f"{key} must say what to build (a LazyCall), got {short_repr(node)}: see "
            "configs/demo.py"
        )
    target = node["_target_"]
    if isinstance(target, str):
        target = _located(key, target)
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # something in C: it checks its arguments itself
        return
    given = [str(name) for name in node if name != "_target_"]
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in given if name not in parameters and not free]
    required = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    missing = [name for name in required if name not in given]
    if unknown or missing:
        problem = f"has no argument {unknown[0]!r}" if unknown else f"needs {missing[0]!r} too"
        raise ValueError(f"{key}: {target.__name__} {problem}; correct the config")
    annotations = _annotations(target)
    for name in given:
        if f"{key}.{name}" not in _GIVEN_BY_THE_RUN:
            _check_value(f"{key}.{name}", node[name], annotations.get(name, Any))


def _located(key: str, name: str) -> Any:
    try:
        target = locate(name)
    except Exception as error:  # it raises a plain Exception, or what importing raises
        raise ValueError(f"{key}: there is no {name!r} to call; correct its _target_") from error
    if not callable(target):
        raise ValueError(f"{key}: {name!r} cannot be called; correct its _target_")
    return target


def _annotations(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # names that only a type checker sees
        return {}


def _check_value(key: str, value: Any, annotation: Any) -> None:
    if _is_call(value):
        _check_call(key, value)
        return
    if isinstance(value, list | tuple | ListConfig):
        for i, item in enumerate(value):
            if _is_call(item):
                _check_call(f"{key}.{i}", item)
    if not _fits(value, annotation):
        raise ValueError(f"{key} must be {_words(annotation)}, got {short_repr(_plain(value))}")


def _is_call(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value of a config may be given where ``annotation`` stands."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if isinstance(annotation, typing.TypeVar):
        return _fits(value, annotation.__bound__ or Any)
    if _is_call(value) or annotation is Any:
        return True
    if value is None or annotation is type(None):
        return value is None and annotation is type(None)
    if isinstance(value, bool) or annotation is bool:
        return isinstance(value, bool) and annotation is bool
    if annotation is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if annotation in (int, str):
        return isinstance(value, annotation)
    kind = origin or annotation
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        if not isinstance(value, list | tuple | ListConfig):
            return False
        if kind is tuple and Ellipsis not in parts and len(value) != len(parts):
            return False
        items = [part for part in parts if part is not Ellipsis] or [Any]
        return all(any(_fits(item, part) for part in items) for item in value)
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    return not isinstance(value, int | float | str)  # an object, which only its taker knows


def _words(annotation: Any) -> str:
    """An annotation as a user would say it."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(part) for part in parts))
    simple = {
        bool: "True or False",
        int: "a whole number",
        float: "a finite number",
        str: "text",
        type(None): "null",
    }
    if annotation in simple:
        return simple[annotation]
    kind = origin or getattr(annotation, "__bound__", None) or annotation
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        items = dict.fromkeys(_words(part) for part in parts if part is not Ellipsis)
        count = f"{len(parts)}, each " if kind is tuple and Ellipsis not in parts else ""
        return f"a list of {count}{' or '.join(items)}" if items else "a list"
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "a section"
    return f"a LazyCall that makes a {getattr(kind, '__name__', kind)}"
