"""Evaluation of a checkpoint on every target domain."""

import logging
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from recyclelora.common.devices import pick_device
from recyclelora.common.digests import file_digest, state_digest
from recyclelora.config.objects import instantiate
from recyclelora.config.resume_check import evaluation_settings
from recyclelora.data.loader import TestLoader
from recyclelora.evaluation import evaluate_domains
from recyclelora.evaluation.sliding_window import Predict

from .build import build_from_checkpoint
from .checkpoint import Checkpoints, read_checkpoint
from .loading import prepare_loaders
from .output import setup
from .predictor import predictor
from .trainer import amp_dtype


def evaluate(cfg: DictConfig, *, resume: bool = False) -> dict:
    """Evaluate a checkpoint on every target domain.

    The function writes a table to the log, ``domains.json`` and pictures. The checkpoint is
    ``evaluation.checkpoint`` or, if that is not set, the newest one in the output folder.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    resume : bool
        Whether to continue an interrupted evaluation of the same checkpoint.

    Returns
    -------
    dict
        The content of ``domains.json``.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        For instance if the checkpoint is unreadable or the interrupted evaluation is another one.
    """
    log = setup(cfg)
    device = pick_device(cfg.train.device)
    source = find_evaluated(cfg, log)
    content = read_checkpoint(source)
    loaders = target_loaders(cfg)
    model = build_from_checkpoint(cfg, content, source=str(source), device=device)
    checkpoint = {
        "file": str(source),
        "iteration": content["iteration"],
        "sha256": file_digest(source),
        **describe_weights(model),
    }
    averaged = ", averaged weights" if "ema" in content else ""
    log.info(
        "Evaluating %s (iteration %d%s, sha256 %s)",
        source, content["iteration"], averaged, checkpoint["sha256"],
    )  # fmt: skip
    del content  # frees tensors of the size of the model
    with predictor(model, dtype=amp_dtype(cfg.train.amp.dtype, device)) as predict:
        return evaluate_targets(cfg, predict, loaders, checkpoint=checkpoint, resume=resume)


def find_evaluated(cfg: DictConfig, log: logging.Logger) -> Path:
    """Return the checkpoint that ``--eval-only`` evaluates.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    log : logging.Logger
        The log.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    FileNotFoundError
        If ``evaluation.checkpoint`` is not set and the output folder has no checkpoint.
    """
    named, initial = cfg.evaluation.get("checkpoint"), cfg.train.init_checkpoint
    if initial is not None:
        log.info(
            "train.init_checkpoint=%s is ignored, because it only applies to training: "
            "--eval-only evaluates evaluation.checkpoint or, without it, the newest checkpoint "
            "in train.output_dir",
            initial,
        )
    if named is not None:
        return Path(named)
    paths = Checkpoints(cfg.train.output_dir).paths()
    if not paths:
        raise FileNotFoundError(
            f"no checkpoint to evaluate in train.output_dir={cfg.train.output_dir}: train first, "
            "or give evaluation.checkpoint=FILE (train.init_checkpoint only starts a training)"
        )
    return paths[-1]


def check_training_keys(cfg: DictConfig) -> None:
    """Raise an error if ``evaluation.checkpoint`` is set in a training.

    Parameters
    ----------
    cfg : DictConfig
        The config of the training.

    Raises
    ------
    ValueError
        If the key is set.
    """
    if (named := cfg.evaluation.get("checkpoint")) is not None:
        raise ValueError(
            f"evaluation.checkpoint={named} applies only to an evaluation: add --eval-only, or "
            "start a training from this file with train.init_checkpoint"
        )


def describe_weights(model: nn.Module) -> dict[str, str]:
    """Return the entry of ``domains.json`` that identifies the weights of a model.

    Parameters
    ----------
    model : nn.Module
        The model.

    Returns
    -------
    dict
        The entry.
    """
    return {"weights_sha256": state_digest(model.state_dict())}


def target_loaders(cfg: DictConfig) -> dict[str, TestLoader]:
    """Return a loader for each target domain that is not null in ``dataloader.test``.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.

    Returns
    -------
    dict
        The loaders by name.

    Raises
    ------
    ValueError
        If the protocol does not cover one of the domains.
    """
    tests = cfg.dataloader.test.items()
    loaders = {name: instantiate(loader) for name, loader in tests if loader is not None}
    protocol = instantiate(cfg.evaluation.protocol)
    for loader in loaders.values():
        protocol.input_size(1024, 512, loader.metadata.benchmark)
    prepare_loaders(cfg, loaders)
    return loaders


def evaluate_targets(
    cfg: DictConfig,
    predict: Predict,
    loaders: dict[str, TestLoader],
    *,
    checkpoint: Mapping,
    resume: bool = False,
) -> dict:
    """Evaluate ``predict`` with the protocol and the outputs of the config.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    predict : Callable
        The function from images to logits.
    loaders : dict
        The loaders of :func:`target_loaders`.
    checkpoint : Mapping
        The entry ``checkpoint`` of ``domains.json``.
    resume : bool
        Whether to continue an interrupted evaluation.

    Returns
    -------
    dict
        The result of :func:`evaluate_domains`.
    """
    device = pick_device(cfg.train.device)
    settings = {
        **evaluation_settings("model", cfg.model),
        "train.amp.dtype": str(amp_dtype(cfg.train.amp.dtype, device)),
        "weights_sha256": checkpoint["weights_sha256"],
    }
    return evaluate_domains(
        predict,
        loaders,
        protocol=instantiate(cfg.evaluation.protocol),
        output_dir=cfg.train.output_dir,
        save_predictions=cfg.evaluation.get("save_predictions"),
        checkpoint=checkpoint,
        settings=settings,
        domain_settings={
            name: evaluation_settings(f"dataloader.test.{name}", cfg.dataloader.test[name])
            for name in loaders
        },
        resume=resume,
        temperature=cfg.evaluation.get("temperature"),
    )
