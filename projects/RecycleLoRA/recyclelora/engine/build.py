"""Configs and models from command lines, configs and checkpoints."""

import copy
from collections.abc import Mapping, Sequence

import torch
from omegaconf import DictConfig
from torch import nn

from recyclelora.config.files import read_config
from recyclelora.config.objects import instantiate
from recyclelora.config.overrides import apply_overrides
from recyclelora.config.paths import expand_paths
from recyclelora.config.validation import check_config

from .checkpoint import evaluated_weights, load_model, read_checkpoint
from .trained import TRAINED, load_trained


def load_config(config_file: str, overrides: Sequence[str]) -> DictConfig:
    """Return the config file with the overrides ``key=value`` applied, validated."""
    cfg = apply_overrides(read_config(config_file), overrides)
    check_config(cfg)
    expand_paths(cfg)
    return cfg


def build_model(
    cfg: DictConfig,
    *,
    device: torch.device,
    state: Mapping[str, torch.Tensor] | None = None,
    source: str = "",
) -> nn.Module:
    """Instantiate ``cfg.model`` on ``device``, from pretrained weights or from a checkpoint.

    Parameters
    ----------
    cfg : DictConfig
        The complete config; it is not changed.
    device : torch.device
    state : Mapping[str, Tensor], optional
        State dict of a checkpoint, which replaces all weights: the pretrained file is then not
        needed and no weight is decomposed.
    source : str
        Where ``state`` comes from, for error messages.

    Raises
    ------
    ValueError
        If ``state`` belongs to another model.
    """
    if state is None:
        return instantiate(cfg.model).to(device)
    cfg = copy.deepcopy(cfg)  # completely, because the model may refer to other sections
    with torch.device("meta"):  # shapes only
        cfg.model.backbone = instantiate(cfg.model.backbone)
    model = instantiate(cfg.model)
    load_model(model, state, source=source, assign=True)
    return model.to(device)


def build_from_checkpoint(
    cfg: DictConfig, content: dict, *, source: str, device: torch.device
) -> nn.Module:
    """Build the model of a checkpoint with the weights that are evaluated.

    Parameters
    ----------
    cfg : DictConfig
    content : dict
        What :func:`read_checkpoint` returned for ``source``. A file of :func:`save_trained` needs
        the pretrained base, too.
    source : str
        The file, for error messages.
    device : torch.device
    """
    if content["format"] == TRAINED:
        model = build_model(cfg, device=device)
        load_trained(model, content, source=source)
        return model
    return build_model(cfg, device=device, state=evaluated_weights(content), source=source)


def build_run(
    config_file: str, overrides: Sequence[str], checkpoint: str, *, device: torch.device
) -> tuple[nn.Module, DictConfig, int]:
    """Build the model of a run from its config and a checkpoint.

    Parameters
    ----------
    config_file, overrides : str, sequence of str
        Of the run.
    checkpoint : str
        A file of :func:`save_checkpoint` or :func:`save_trained`.
    device : torch.device

    Returns
    -------
    model : nn.Module
        With the weights that are evaluated.
    cfg : DictConfig
        The config with the overrides applied.
    iteration : int
        Number of finished iterations.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is absent or cannot be used, or they do not belong together.
    """
    content = read_checkpoint(checkpoint)
    cfg = load_config(config_file, overrides)
    model = build_from_checkpoint(cfg, content, source=checkpoint, device=device)
    return model, cfg, content["iteration"]
