"""A run from its config: build, train, evaluate; the floor that ``tools/`` stands on."""

import copy
import logging
import re
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import JSONWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from recyclelora.backbone import load_weights
from recyclelora.bad_input import brief
from recyclelora.data.loader import TestLoader
from recyclelora.evaluation import evaluate_domains, preview_domains

from .checkpoint import Checkpoints, load_model, read_checkpoint
from .hooks import Every, StepTimer
from .param_groups import groups_table
from .predictor import predictor
from .progress import ProgressLine
from .trained import TRAINED, load_trained
from .trainer import Trainer, amp_dtype

LOGGER = "recyclelora.run"


def setup(cfg: DictConfig) -> logging.Logger:
    """Make the output folder, start its log and seed the libraries' generators."""
    output = Path(cfg.train.output_dir)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name in ("recyclelora", "detectron2", "fvcore"):
            logger = setup_logger(str(output / "log.txt"), comm.get_rank(), name=name)
            logger.setLevel(logging.INFO)
        if comm.is_main_process():
            LazyConfig.save(cfg, str(output / "config.yaml"))
    except OSError as error:
        raise ValueError(
            f"train.output_dir={output} must be a folder to write to, got: {error.strerror}; "
            "choose another one"
        ) from error
    seed_all_rng(cfg.train.seed)
    return logging.getLogger(LOGGER)


def pick_device(name: str) -> torch.device:
    """``auto`` is this process's GPU where torch sees one, else the CPU.

    Raises:
        ValueError: another name than auto, cpu, cuda or cuda:N, or torch sees no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", name):
        raise ValueError(f"train.device must be auto, cpu, cuda or cuda:N, got {brief(name)}")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"train.device={name} needs a GPU and torch sees none: use train.device=cpu"
        )
    if name == "cuda":
        name = f"cuda:{torch.cuda.current_device()}"
    device = torch.device(name)
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        raise ValueError(f"train.device={name}, but torch sees {torch.cuda.device_count()} GPUs")
    return device


def build_model(cfg: DictConfig, *, pretrained: bool, device: torch.device) -> nn.Module:
    """Instantiate ``cfg.model`` on ``device``.

    Args:
        cfg: the whole config; it is not changed.
        pretrained: read the backbone's pretrained weights; False where a checkpoint replaces every
            weight anyway, so that the file is not needed to evaluate or resume.
        device: where the model goes.
    """
    if not pretrained:
        cfg = copy.deepcopy(cfg)  # all of it: the model may refer to other sections
        _drop_pretrained(cfg.model)
    return instantiate(cfg.model).to(device)


def build_from(cfg: DictConfig, content: dict, *, source: str, device: torch.device) -> nn.Module:
    """The model of a checkpoint, or of what :func:`save_trained` wrote: that needs its base too.

    Args:
        content: what :func:`read_checkpoint` read from ``source``.
    """
    if content["format"] == TRAINED:
        model = build_model(cfg, pretrained=True, device=device)
        load_trained(model, content, source=source)
    else:
        model = build_model(cfg, pretrained=False, device=device)
        load_model(model, content["model"], source=source)
    return model


def _drop_pretrained(node) -> None:
    loader = f"{load_weights.__module__}.{load_weights.__qualname__}"
    for child in node.values() if isinstance(node, DictConfig) else []:
        if isinstance(child, DictConfig):
            target = child.get("_target_")
            if target is load_weights or target == loader:
                child.weights = None
            _drop_pretrained(child)


def train(cfg: DictConfig, *, resume: bool = False) -> None:
    """Train as ``cfg`` says; ``resume`` goes on from the newest checkpoint of the output folder."""
    log = setup(cfg)
    device = pick_device(cfg.train.device)
    domains = _domains(cfg)  # first: a target set that is missing must not show after the training
    _check_protocol(cfg, domains)
    checkpoints = Checkpoints(cfg.train.output_dir, keep=cfg.train.checkpoints_kept)
    found = checkpoints.latest(log=log.warning) if resume else None
    if not resume and checkpoints.paths():
        raise ValueError(
            f"{cfg.train.output_dir} holds the checkpoints of an earlier run: add --resume to go "
            "on with it, or choose another train.output_dir"
        )
    start, model = _build_to_train(cfg, found, device, log)
    if start >= cfg.train.max_iter:
        log.info("All %d iterations are done: evaluating", start)
        _evaluate(cfg, model, domains, amp_dtype(cfg.train.amp.dtype, device))
        return
    ddp = create_ddp_model(
        model,
        broadcast_buffers=False,
        device_ids=[device.index] if device.type == "cuda" else None,
    )
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    cfg.optimizer.params.model = None
    cfg.dataloader.train.start_iteration = start
    loader = instantiate(cfg.dataloader.train)
    trainer = Trainer(
        model=ddp,
        loader=loader,
        optimizer=optimizer,
        schedule=instantiate(cfg.schedule),
        dtype=amp_dtype(cfg.train.amp.dtype, device),
        accumulate=cfg.train.accumulate,
    )
    if found is not None:
        optimizer.load_state_dict(found[1]["optimizer"])
        trainer.scaler.load_state_dict(found[1]["scaler"])
        del found
    log.info("Optimiser groups:\n%s", groups_table(optimizer))
    trainer.register_hooks(_hooks(cfg, model, domains, trainer, checkpoints, log))
    log.info(
        "Training on %s in %s, iterations %d to %d",
        device,
        trainer.dtype,
        start,
        cfg.train.max_iter,
    )
    trainer.train(start, cfg.train.max_iter)


def _build_to_train(cfg, found, device, log) -> tuple[int, nn.Module]:
    """The model to train and the iteration to begin with."""
    if found is not None:
        path, content = found
        model = build_from(cfg, content, source=str(path), device=device)
        log.info("Resuming from %s at iteration %d", path, content["iteration"])
        return content["iteration"], model
    initial = cfg.train.init_checkpoint
    if initial is None:
        return 0, build_model(cfg, pretrained=True, device=device)
    return 0, build_from(cfg, read_checkpoint(initial), source=str(initial), device=device)


def _hooks(cfg, model, domains, trainer, checkpoints, log) -> list:
    def save(done: int) -> None:
        if comm.is_main_process():
            checkpoints.save(
                model=model,
                optimizer=trainer.optimizer,
                scaler=trainer.scaler,
                iteration=done,
            )

    def evaluate_now(_: int) -> None:
        _evaluate(cfg, model, domains, trainer.dtype)

    def preview(done: int) -> None:
        _preview(cfg, model, domains, trainer.dtype, f"iter_{done:07d}.png")

    output = Path(cfg.train.output_dir)
    actions = [StepTimer()]
    if comm.is_main_process():
        writers = [
            ProgressLine(iterations=cfg.train.max_iter, logger=log),
            JSONWriter(str(output / "metrics.json")),
            TensorboardXWriter(str(output)),
        ]
        actions.append(hooks.PeriodicWriter(writers, period=cfg.train.log_period))
    return [
        *actions,
        Every(action=save, period=cfg.train.checkpoint_period, last=True),
        Every(action=preview, period=cfg.train.picture_period),
        Every(action=evaluate_now, period=cfg.train.eval_period, last=True),
    ]


def evaluate(cfg: DictConfig) -> dict:
    """Evaluate a checkpoint on every target domain: a table, ``domains.json`` and pictures.

    The checkpoint is ``train.init_checkpoint``, or else the newest of the output folder.

    Raises:
        FileNotFoundError: there is neither.
    """
    log = setup(cfg)
    device = pick_device(cfg.train.device)
    if cfg.train.init_checkpoint is not None:
        source = cfg.train.init_checkpoint
        content = read_checkpoint(source)
    else:
        found = Checkpoints(cfg.train.output_dir).latest(log=log.warning)
        if found is None:
            raise FileNotFoundError(
                f"no checkpoint to evaluate in {cfg.train.output_dir}: train first, or give "
                "train.init_checkpoint=FILE"
            )
        source, content = found
    domains = _domains(cfg)
    model = build_from(cfg, content, source=str(source), device=device)
    log.info("Evaluating %s (iteration %d)", source, content["iteration"])
    return _evaluate(cfg, model, domains, amp_dtype(cfg.train.amp.dtype, device))


def _domains(cfg: DictConfig) -> dict[str, TestLoader]:
    """A loader per target domain; ``dataloader.test.NAME=null`` leaves one out."""
    loaders = cfg.dataloader.test.items()
    return {name: instantiate(loader) for name, loader in loaders if loader is not None}


def _check_protocol(cfg: DictConfig, domains: dict[str, TestLoader]) -> None:
    """Raise if the protocol makes no sense or says nothing about one of the sets."""
    protocol = instantiate(cfg.evaluation.protocol)
    for loader in domains.values():
        protocol.input_size(1024, 512, loader.metadata.benchmark)


def _evaluate(
    cfg: DictConfig, model: nn.Module, domains: dict[str, TestLoader], dtype: torch.dtype
) -> dict:
    with predictor(model, dtype=dtype) as predict:
        return evaluate_domains(
            predict,
            domains,
            protocol=instantiate(cfg.evaluation.protocol),
            output_dir=cfg.train.output_dir,
        )


def _preview(
    cfg: DictConfig,
    model: nn.Module,
    domains: dict[str, TestLoader],
    dtype: torch.dtype,
    name: str,
) -> None:
    if not comm.is_main_process():
        return
    with predictor(model, dtype=dtype) as predict:
        preview_domains(
            predict,
            domains,
            protocol=instantiate(cfg.evaluation.protocol),
            path=Path(cfg.train.output_dir) / "pictures" / name,
        )
