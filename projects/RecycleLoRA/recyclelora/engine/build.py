"""Construction of configs and models from command lines, config files and checkpoints."""

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
    """Read a config file, apply overrides and validate the result.

    Parameters
    ----------
    config_file : str
        The config file.
    overrides : sequence of str
        Overrides of the form ``key=value``.

    Returns
    -------
    DictConfig
        The complete config.
    """
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
        The device of the model.
    state : Mapping[str, Tensor], optional
        State dict of a checkpoint that replaces all weights. The pretrained file is then not needed
        and no weight is decomposed.
    source : str
        The origin of ``state``, for error messages.

    Returns
    -------
    nn.Module
        The model.

    Raises
    ------
    ValueError
        If ``state`` does not fit the model.
    """
    if state is None:
        return instantiate(cfg.model).to(device)
    cfg = copy.deepcopy(cfg)  # a full copy, because the model may refer to other sections
    with torch.device("meta"):  # shapes only
        cfg.model.backbone = instantiate(cfg.model.backbone)
    model = instantiate(cfg.model)
    load_model(model, state, source=source, assign=True)
    return model.to(device)


def build_from_checkpoint(
    cfg: DictConfig, content: dict, *, source: str, device: torch.device
) -> nn.Module:
    """Build the model of a checkpoint with the weights for evaluation.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    content : dict
        The result of :func:`read_checkpoint` for ``source``. For a file of :func:`save_trained`,
        the pretrained base is needed as well.
    source : str
        The file, for error messages.
    device : torch.device
        The device of the model.

    Returns
    -------
    nn.Module
        The model.
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
        The config file and the overrides of the run.
    checkpoint : str
        A file of :func:`save_checkpoint` or :func:`save_trained`.
    device : torch.device
        The device of the model.

    Returns
    -------
    model : nn.Module
        The model with the weights for evaluation.
    cfg : DictConfig
        The config with the overrides applied.
    iteration : int
        The number of finished iterations.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or unusable, or if config and checkpoint do not match.
    """
    content = read_checkpoint(checkpoint)
    cfg = load_config(config_file, overrides)
    model = build_from_checkpoint(cfg, content, source=checkpoint, device=device)
    return model, cfg, content["iteration"]
