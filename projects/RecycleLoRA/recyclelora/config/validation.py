"""Validation of a whole config before anything is built: names, arguments and types."""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recyclelora.common.validation import check_integer, check_number, short_repr
from recyclelora.data import CLASSES
from recyclelora.data.workers import TIMEOUT
from recyclelora.evaluation import Protocol
from recyclelora.evaluation.predictions import check_format

from .objects import object_name, result_class
from .walk import find_annotations, find_parameters, find_target, is_call, is_list, walk

SECTIONS = ("train", "model", "optimizer", "schedule", "dataloader", "evaluation")

# All keys of the section train, with the least and greatest whole number, or the type.
_TRAIN: dict[str, Any] = {
    "output_dir": str,
    "seed": (0, 2**32 - 1),
    "max_iter": (1, 10**9),
    "device": str,
    "amp": Mapping,
    "accumulate": (1, 10**4),
    "checkpointing": bool,
    "compile": bool,
    "ema": float | Mapping | None,
    "skip_bad_batches": (0, 10**9),
    "init_checkpoint": str | None,
    "checkpoint_period": (0, 10**9),
    "checkpoints_kept": (1, 10**9),
    "eval_period": (0, 10**9),
    "picture_period": (0, 10**9),
    "log_period": (1, 10**9),
}
_EVALUATION = ("protocol", "checkpoint", "save_predictions", "temperature")
_GIVEN_BY_THE_RUN = ("optimizer.params.model",)


def check_config(cfg: DictConfig) -> None:
    """Raise an error for the first value in a config that no run can use.

    Every ``_target_`` must exist. Its arguments must be complete, known, and of the annotated
    types. Ranges of numbers are checked by the callables themselves.

    Parameters
    ----------
    cfg : DictConfig
        The config.

    Raises
    ------
    ValueError
        If a value is invalid. The message is one sentence with the dotted key of the value.
    """
    try:
        _check_train(cfg.train)
        for key in ("model", "optimizer", "schedule"):
            _check_calls(key, cfg[key])
        if (classes := cfg.model.get("num_classes", len(CLASSES))) != len(CLASSES):
            raise ValueError(
                f"model.num_classes must be {len(CLASSES)}, the classes of every dataset here, got "
                f"{short_repr(classes)}: define a folding for a dataset that labels fewer classes"
            )
        nodes = walk(cfg.model, "model")
        if cfg.train.checkpointing and not any(
            value and key.endswith(".checkpointing") for key, value in nodes
        ):
            raise ValueError(
                "train.checkpointing must be False for a backbone without checkpointing, got True: "
                'pass checkpointing="${train.checkpointing}" to the ViT if it has this argument'
            )
        for section, key in (("dataloader", "train"), ("evaluation", "protocol")):
            _check_calls(f"{section}.{key}", _inside(cfg, section, key))
        _check_value("evaluation.protocol", cfg.evaluation.protocol, Protocol)
        _check_evaluation(cfg.evaluation)
        check_number("dataloader.timeout", cfg.dataloader.get("timeout", TIMEOUT), least=1)
        if cfg.dataloader.train.get("iterations") is not None:
            raise ValueError("dataloader.train.iterations must be null: set train.max_iter instead")
        domains = _inside(cfg, "dataloader", "test")
        if not isinstance(domains, DictConfig) or not any(domains.values()):
            raise ValueError(
                f"dataloader.test must name at least one domain with its loader, got "
                f"{short_repr(domains)}: see configs/demo.py"
            )
        for name, loader in domains.items():
            if loader is not None:
                _check_calls(f"dataloader.test.{name}", loader)
    except OmegaConfBaseException as error:
        raise ValueError(
            f"the config cannot be resolved ({str(error).splitlines()[0]}); correct the "
            "interpolation (an environment variable is $NAME in a path, or ${oc.env:NAME})"
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
    for key, expected in _TRAIN.items():
        if key not in train:
            raise ValueError(f"the config lacks train.{key}: see configs/common/train.py")
        if isinstance(expected, tuple):
            check_integer(f"train.{key}", train[key], least=expected[0], most=expected[1])
        elif is_call(train[key]):
            raise ValueError(f"train.{key} must be {_words(expected)}, got a LazyCall or an object")
        else:
            _check_value(f"train.{key}", train[key], expected)
    if not train.output_dir.strip():
        raise ValueError(
            "train.output_dir must be the path of a folder, got an empty value: set it"
        )
    _check_value("train.amp.dtype", train.amp.get("dtype"), str)


def _check_evaluation(evaluation: DictConfig) -> None:
    if unknown := [key for key in evaluation if key not in _EVALUATION]:
        raise ValueError(
            f"evaluation.{unknown[0]} is not a setting: the section evaluation has "
            f"{', '.join(_EVALUATION[:-1])} and {_EVALUATION[-1]}, see configs/demo.py"
        )
    _check_value("evaluation.checkpoint", evaluation.get("checkpoint"), str | None)
    check_format("evaluation.save_predictions", evaluation.get("save_predictions"))
    if evaluation.get("temperature") is not None:
        check_number("evaluation.temperature", evaluation.temperature, least=0.01, most=100)


def _check_calls(key: str, node: Any) -> None:
    """Check that ``node`` is a call, and check the arguments of every call in it."""
    if not is_call(node):
        raise ValueError(f"{key} must be a LazyCall, got {short_repr(node)}: see configs/demo.py")
    calls = [(name, below) for name, below in walk(node, key) if is_call(below)]
    for name, call in calls:  # targets first, because types of arguments depend on them
        find_target(call, name)
    for name, call in calls:
        _check_arguments(name, call)


def _check_arguments(key: str, call: Mapping) -> None:
    target = find_target(call, key)
    parameters = find_parameters(target)
    if parameters is None:  # a C function, which checks its arguments itself
        return
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            raise ValueError(
                f"{key}: {object_name(target)} accepts {parameter.name!r} only by position, which "
                "a LazyCall does not support: call a function that accepts it by name"
            )
    given = {str(name): value for name, value in call.items() if name != "_target_"}
    free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in given if name not in parameters and not free]
    missing = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD and name not in given
    ]
    if unknown or missing:
        problem = f"has no argument {unknown[0]!r}" if unknown else f"also needs {missing[0]!r}"
        raise ValueError(f"{key}: {object_name(target)} {problem}; correct the config")
    annotations = find_annotations(target)
    for name, value in given.items():
        if f"{key}.{name}" not in _GIVEN_BY_THE_RUN:
            _check_value(f"{key}.{name}", value, annotations.get(name, Any))


def _check_value(key: str, value: Any, annotation: Any) -> None:
    if not _fits(value, annotation):
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        raise ValueError(f"{key} must be {_words(annotation)}, got {short_repr(plain)}")


# pydantic does not replace this function. It rejects a list for a tuple, and a LazyCall for its
# result, so both would need code here, and its messages ("Input should be a valid number", one for
# each part of a union) would need _words.
def _fits(value: Any, annotation: Any) -> bool:
    """Return whether ``annotation`` allows a value of a config."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if isinstance(annotation, typing.TypeVar):
        return _fits(value, annotation.__bound__ or Any)
    if annotation is Any:
        return True
    if origin is typing.Literal:
        return value in parts
    if is_call(value):
        return _may_make(value, origin or annotation)
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
        if not is_list(value):
            return False
        if kind is tuple and Ellipsis not in parts and len(value) != len(parts):
            return False
        items = [part for part in parts if part is not Ellipsis] or [Any]
        return all(any(_fits(item, part) for part in items) for item in value)
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if is_list(value) or isinstance(value, Mapping):
        return not inspect.isclass(kind) or issubclass(list if is_list(value) else dict, kind)
    if dataclasses.is_dataclass(kind):
        return isinstance(value, kind)
    return not isinstance(value, int | float | str)  # the target checks objects


def _may_make(call: Mapping, kind: Any) -> bool:
    """Return whether a call may make an object of ``kind``, which is unknown for functions."""
    result = result_class(call)
    if result is None or not inspect.isclass(kind):
        return True
    known = dataclasses.is_dataclass(result) or dataclasses.is_dataclass(kind)
    return not known or issubclass(result, kind)


def _words(annotation: Any) -> str:
    """Return an annotation as text for users."""
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
