"""One walk over a config: its nodes by dotted key, and the signatures of its calls."""

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import ListConfig

# What Detectron2 makes of the module of a config file, and of one that it imports.
_CONFIG_MODULES = ("builtins.", "detectron2._cfg_loader")


def is_call(node: Any) -> bool:
    """Whether ``node`` describes a call, as a ``LazyCall`` does."""
    return isinstance(node, Mapping) and "_target_" in node


def is_list(node: Any) -> bool:
    """Whether ``node`` is a list of nodes."""
    return isinstance(node, list | tuple | ListConfig)


def walk(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(dotted key, node)`` for ``node`` and every node below it, parents first.

    >>> dict(walk({"lr": 0.1, "betas": [0.9, 0.99]}, "optimizer"))["optimizer.betas.1"]
    0.99
    """
    yield key, node
    if isinstance(node, Mapping):
        children = node.items()
    else:
        children = enumerate(node) if is_list(node) else ()
    for name, child in children:
        yield from walk(child, f"{key}.{name}" if key else str(name))


def find_target(call: Mapping, key: str) -> Callable:
    """Return the callable that ``call``, the node at ``key``, names.

    Raises
    ------
    ValueError
        If there is no such callable.
    """
    target = call["_target_"]
    if isinstance(target, str):
        try:
            target = locate(target)
        except Exception as error:  # locate raises Exception, or any error of an import
            remedy = "correct its _target_"
            if target.startswith(_CONFIG_MODULES):  # LazyCall stores a dataclass by its name
                cls = target.rpartition(".")[2]
                remedy = (
                    f"a dataclass of a config file goes in as LazyCall(functools.partial({cls}))"
                    "(...)"
                )
            raise ValueError(f"{key}: there is no {target!r} to call; {remedy}") from error
    if not callable(target):
        raise ValueError(f"{key}: {call['_target_']!r} cannot be called; correct its _target_")
    return target


def find_parameters(target: Callable) -> dict[str, inspect.Parameter] | None:
    """Return the parameters that ``target`` takes by name, and its ``**`` parameter.

    None stands for a function in C without a signature.
    """
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    return {p.name: p for p in parameters if p.kind not in by_position}


def find_annotations(target: Callable) -> dict[str, Any]:
    """Return the annotations of the arguments of ``target``; none if they cannot be resolved."""
    target = inspect.unwrap(target)
    target = target.func if isinstance(target, functools.partial) else target
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # names that only a type checker resolves
        return {}
