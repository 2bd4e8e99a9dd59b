"""Iterate over the nodes of a config by dotted key, and inspect the signatures of its calls."""

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import ListConfig

# Module names that Detectron2 gives to a config file, and to one that it imports.
_CONFIG_MODULES = ("builtins.", "detectron2._cfg_loader")


def is_call(node: Any) -> bool:
    """Return whether a node of a config describes a call, as ``LazyCall`` makes it.

    Parameters
    ----------
    node : Any
        The node.

    Returns
    -------
    bool
        True for a call.
    """
    return isinstance(node, Mapping) and "_target_" in node


def is_list(node: Any) -> bool:
    """Return whether a node of a config is a list of nodes.

    Parameters
    ----------
    node : Any
        The node.

    Returns
    -------
    bool
        True for a list.
    """
    return isinstance(node, list | tuple | ListConfig)


def walk(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of a node and of every node below it, parents first.

    Parameters
    ----------
    node : Any
        A config, or a part of it.
    key : str
        The dotted key of ``node``.

    Yields
    ------
    tuple[str, Any]
        The key and the node.

    Examples
    --------
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
    """Return the target of a call.

    Parameters
    ----------
    call : Mapping
        A call, as ``LazyCall`` makes it.
    key : str
        The dotted key of the call.

    Returns
    -------
    Callable
        The function or class.

    Raises
    ------
    ValueError
        If the target does not exist or cannot be called.
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
                    f"write a dataclass of a config file as LazyCall(functools.partial({cls}))(...)"
                )
            raise ValueError(f"{key}: {target!r} does not exist: {remedy}") from error
    if not callable(target):
        raise ValueError(f"{key}: {call['_target_']!r} cannot be called: correct its _target_")
    return target


def find_parameters(target: Callable) -> dict[str, inspect.Parameter] | None:
    """Return the parameters that a callable takes by name, including its ``**`` parameter.

    Parameters
    ----------
    target : Callable
        The callable.

    Returns
    -------
    dict[str, inspect.Parameter] or None
        The parameters by name, or None for a C function without a signature.
    """
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    return {p.name: p for p in parameters if p.kind not in by_position}


def find_annotations(target: Callable) -> dict[str, Any]:
    """Return the annotations of a callable's arguments.

    Parameters
    ----------
    target : Callable
        The callable.

    Returns
    -------
    dict[str, Any]
        The annotations by name; empty if they cannot be resolved.
    """
    target = inspect.unwrap(target)
    target = target.func if isinstance(target, functools.partial) else target
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # names that only a type checker resolves
        return {}
