"""Expand ``~`` and environment variables in all paths of a config."""

import os
import types
import typing
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recyclelora.common.paths import expand_path, is_expandable

from .walk import find_annotations, find_target, is_call, walk

_KEYS = ("train.output_dir", "train.init_checkpoint", "evaluation.checkpoint")


def expand_paths(cfg: DictConfig) -> None:
    """Replace ``~`` and ``$NAME`` in the paths of a config in place.

    Paths are some keys of the sections ``train`` and ``evaluation``, and every argument of a call
    that is annotated with a path type.

    Parameters
    ----------
    cfg : DictConfig
        The config.

    Raises
    ------
    ValueError
        If a variable is not set, or if a home folder is unknown. The message names the key.
    """
    for key in _KEYS:
        section, _, name = key.partition(".")
        _expand(cfg[section], name, key)
    for key, call in walk(cfg):
        if is_call(call):
            for name, annotation in find_annotations(find_target(call, key)).items():
                if _is_path(annotation):
                    _expand(call, name, f"{key}.{name}")


def _expand(node: DictConfig, name: str, key: str) -> None:
    value = node.get(name) if isinstance(node, DictConfig) else None
    if isinstance(value, str | os.PathLike) and is_expandable(value):
        try:
            OmegaConf.update(node, name, str(expand_path(value)))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error


def _is_path(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_path(part) for part in typing.get_args(annotation))
    kind = typing.get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, os.PathLike)
