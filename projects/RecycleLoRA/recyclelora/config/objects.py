"""Store, build, name and save the objects in a config."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from enum import Enum
from pathlib import PurePath
from typing import Any

import yaml
from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, ListConfig, OmegaConf

from recyclelora.common.validation import short_repr

from .walk import find_target, is_list

_PLAIN = (bool, int, float, str, type(None))


def as_calls(node: Any, key: str = "") -> Any:
    """Return a config as plain containers in which calls replace objects of dataclasses.

    OmegaConf stores such an object as a dictionary of its fields and loses its methods. The call
    builds an equal object. It can be saved, compared, and overridden field by field.

    Parameters
    ----------
    node : DictConfig, ListConfig or value
        A config, or a part of it. Interpolations are kept.
    key : str
        The dotted key of ``node``, for error messages.

    Returns
    -------
    object
        Dictionaries, lists and values.

    Raises
    ------
    ValueError
        If an object cannot be rebuilt from its fields.

    Examples
    --------
    >>> from recyclelora.data import CAMVID
    >>> node = OmegaConf.create({"folding": CAMVID}, flags={"allow_objects": True})
    >>> content = as_calls(node)
    >>> content["folding"]["name"], instantiate(content["folding"]) == CAMVID
    ('CamVid', True)
    """
    if isinstance(node, ListConfig):
        return [value for _, value in _children(node, key)]
    if not isinstance(node, DictConfig):
        return node
    content = dict(_children(node, key))
    cls = _class_of(node)
    return content if cls is None else _call(cls, content, node, key)


def instantiate(node: Any) -> Any:
    """Build the objects that a part of a config describes.

    The function differs from Detectron2's function of this name: it also builds objects in lists
    and dictionaries, and passes plain lists and dictionaries to targets.

    Parameters
    ----------
    node : Any
        A config, or a part of it.

    Returns
    -------
    object
        The object, or ``node`` with objects in place of calls.

    Examples
    --------
    >>> instantiate({"sizes": [{"_target_": "builtins.complex", "real": 1, "imag": 2}]})
    {'sizes': [(1+2j)]}
    """
    if isinstance(node, ListConfig) or type(node) in (list, tuple):
        items = [instantiate(item) for item in node]
        return tuple(items) if type(node) is tuple else items
    if not isinstance(node, DictConfig) and type(node) is not dict:
        return node
    values = {name: instantiate(value) for name, value in node.items()}
    if isinstance(node, DictConfig) and (cls := _class_of(node)):
        parameters = inspect.signature(cls).parameters
        return _builder(cls)(**{name: values[name] for name in values if name in parameters})
    if "_target_" not in values:
        return values
    target = find_target(values, "_target_")
    del values["_target_"]
    return target(**values)


def result_class(call: Mapping) -> type | None:
    """Return the class of the object that a call makes.

    Parameters
    ----------
    call : Mapping
        A call, as ``LazyCall`` makes it.

    Returns
    -------
    type or None
        The class, or None if the target is not a class.
    """
    target = inspect.unwrap(find_target(call, ""))
    target = target.func if isinstance(target, functools.partial) else target
    return target if inspect.isclass(target) else None


def object_name(value: Any, *, module: bool = False) -> Any:
    """Return a plain value that stands for an object where configs are saved or compared.

    Parameters
    ----------
    value : Any
        Any value.
    module : bool
        Whether the name of a function or class includes its module.

    Returns
    -------
    object
        Plain values are returned unchanged, other values as text.

    Examples
    --------
    >>> object_name(functools.partial(sorted, reverse=True))
    'partial(sorted, reverse=True)'
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, functools.partial):
        options = [f"{name}={object_name(item)!r}" for name, item in value.keywords.items()]
        arguments = [repr(object_name(item)) for item in value.args]
        return f"partial({', '.join([object_name(value.func), *arguments, *options])})"
    if hasattr(value, "__qualname__"):
        named = module and getattr(value, "__module__", None)
        return _convert_target_to_string(value) if named else value.__qualname__
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, PurePath):
        return str(value)
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else short_repr(value)


def config_text(cfg: DictConfig) -> str:
    """Return a config as YAML of plain values.

    Functions, classes and objects are replaced by their names.

    Parameters
    ----------
    cfg : DictConfig
        The config.

    Returns
    -------
    str
        The YAML.
    """
    content = _plain(OmegaConf.to_container(cfg, resolve=False))
    return yaml.safe_dump(
        content, default_flow_style=None, allow_unicode=True, width=9999, sort_keys=False
    )


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        names = (name if type(name) in _PLAIN else str(name) for name in node)
        return {name: _plain(value) for name, value in zip(names, node.values())}
    if is_list(node):
        return [_plain(value) for value in node]
    return object_name(node, module=True)


def _children(node: DictConfig | ListConfig, key: str) -> Iterator[tuple[Any, Any]]:
    unresolved = OmegaConf.to_container(node, resolve=False)
    for name in node.keys() if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            yield name, unresolved[name]
        else:
            yield name, as_calls(node[name], f"{key}.{name}" if key else str(name))


def _class_of(node: DictConfig) -> type | None:
    """Return the class of the object that OmegaConf stored as this node."""
    cls = OmegaConf.get_type(node)
    return cls if cls is not None and not issubclass(cls, Mapping) else None


def _call(cls: type, fields: dict, node: DictConfig, key: str) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters
    for name, parameter in parameters.items():
        if fields.get(name) == "???" or (
            name not in fields  # for instance an InitVar, whose value is lost
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ):
            raise ValueError(
                f"{key} must be an object that can be built from its fields, but {cls.__name__} "
                f"also needs {name!r}: give LazyCall({cls.__name__})(...), or, for the class "
                f"itself, functools.partial({cls.__name__})"
            )
    given = {name: value for name, value in fields.items() if name in parameters}
    call = {"_target_": _builder(cls), **given}
    if len(given) < len(fields):  # some fields are not arguments of __init__
        try:
            same = OmegaConf.structured(instantiate(call), flags={"allow_objects": True}) == node
        except Exception as error:  # the class can raise anything
            raise ValueError(
                f"{key}: {cls.__name__} cannot be built from its fields ({error}); give "
                f"LazyCall({cls.__name__})(...)"
            ) from error
        if not same:
            lost = ", ".join(name for name in fields if name not in parameters)
            raise ValueError(
                f"{key}: {cls.__name__} has values in {lost} that its arguments do not set: build "
                "it with a LazyCall of a function"
            )
    return call


@functools.cache
def _builder(cls: type) -> Callable[..., Any]:
    """Return ``cls`` as a target, because OmegaConf cannot store a dataclass or a tuple."""
    frozen = dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, TypeError, AttributeError):  # names that only a type checker resolves
        hints = {}

    def restored(name: str, value: Any) -> Any:
        kind = typing.get_origin(hints.get(name)) or hints.get(name)
        if not isinstance(value, list):
            return value
        takes_list = inspect.isclass(kind) and issubclass(kind, MutableSequence)
        return tuple(value) if kind is tuple or (frozen and not takes_list) else value

    @functools.wraps(cls, updated=())
    def build(**fields: Any) -> Any:
        plain = {name: instantiate(value) for name, value in fields.items()}
        return cls(**{name: restored(name, value) for name, value in plain.items()})

    return build
