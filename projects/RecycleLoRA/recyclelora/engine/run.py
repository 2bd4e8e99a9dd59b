"""A run from its config: build, train, evaluate; the floor that ``tools/`` stands on."""

import contextlib
import copy
import errno
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import TensorboardXWriter
from omegaconf import DictConfig
from torch import nn

from recyclelora.common.atomic_write import remove_leftovers
from recyclelora.common.devices import pick_device
from recyclelora.config.resume_check import check_same_run, run_settings
from recyclelora.data.loader import TestLoader
from recyclelora.evaluation import evaluate_domains, preview_domains

from .bad_batches import BadBatches
from .checkpoint import Checkpoints, evaluated_weights, load_model, read_checkpoint
from .ema import weight_average
from .hooks import Every, StepTimer, WriteScalars
from .metrics import WINDOW, MetricsFile
from .output import LOGGER, only_training, setup
from .param_groups import groups_table
from .predictor import predictor
from .progress import ProgressLine
from .stopping import StopBetweenSteps, Stopped, StopRequest
from .trained import TRAINED, load_trained
from .trainer import Trainer, amp_dtype


def build_model(
    cfg: DictConfig,
    *,
    device: torch.device,
    state: Mapping[str, torch.Tensor] | None = None,
    source: str = "",
) -> nn.Module:
    """Instantiate ``cfg.model`` on ``device``, from pretrained weights or from a checkpoint.

    Args:
        cfg: the whole config; it is not changed.
        device: where the model goes.
        state: a checkpoint's weights, which replace every other: then the pretrained file is not
            needed and nothing is decomposed.
        source: where ``state`` is from, for error messages.

    Raises:
        ValueError: ``state`` is of another model.
    """
    if state is None:
        return instantiate(cfg.model).to(device)
    cfg = copy.deepcopy(cfg)  # all of it: the model may refer to other sections
    with torch.device("meta"):  # shapes only
        cfg.model.backbone = instantiate(cfg.model.backbone)
    model = instantiate(cfg.model)
    load_model(model, state, source=source, assign=True)
    return model.to(device)


def build_from(cfg: DictConfig, content: dict, *, source: str, device: torch.device) -> nn.Module:
    """The model of a checkpoint, with the weights that are evaluated.

    Or of what :func:`save_trained` wrote, which needs its base too.

    Args:
        content: what :func:`read_checkpoint` read from ``source``.
    """
    if content["format"] == TRAINED:
        model = build_model(cfg, device=device)
        load_trained(model, content, source=source)
        return model
    return build_model(cfg, device=device, state=evaluated_weights(content), source=source)


def train(cfg: DictConfig, *, resume: bool = False) -> None:
    """Train as ``cfg`` says; ``resume`` goes on from the newest checkpoint of the output folder.

    Raises:
        Stopped: SIGTERM or SIGINT came; everything is saved.
        ValueError: among others, another training writes there, or what is resumed is another run.
        OSError: among others, the disk is full; the checkpoints written before are whole.
    """
    try:
        with StopRequest() as request, only_training(cfg.train.output_dir):
            _train(cfg, resume, request)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"cannot write to {cfg.train.output_dir} ({error.strerror}): make room, then go on "
            "with --resume from the last checkpoint, which is whole"
        ) from error


def _train(cfg: DictConfig, resume: bool, request: StopRequest) -> None:
    log, settings = setup(cfg), run_settings(cfg)
    device = pick_device(cfg.train.device)
    domains = _domains(cfg)  # first: a target set that is missing must not show after the training
    _check_protocol(cfg, domains)
    checkpoints = Checkpoints(cfg.train.output_dir, keep=cfg.train.checkpoints_kept)
    found = _found(cfg, checkpoints, resume, log)
    start, model = _build_to_train(cfg, found, device, log)
    ddp = create_ddp_model(
        model,
        broadcast_buffers=False,
        device_ids=[device.index] if device.type == "cuda" else None,
    )
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    cfg.optimizer.params.model = None
    cfg.dataloader.train.start_iteration = start
    trainer = Trainer(
        model=ddp,
        loader=instantiate(cfg.dataloader.train),
        optimizer=optimizer,
        schedule=instantiate(cfg.schedule),
        bad_batches=BadBatches(cfg.train.output_dir, allowed=cfg.train.skip_bad_batches),
        average=weight_average(model, cfg.train.ema),
        seed=cfg.train.seed,
        dtype=amp_dtype(cfg.train.amp.dtype, device),
        accumulate=cfg.train.accumulate,
    )
    if found is not None:
        trainer.load_state_dict(found[1])
        del found
    if start >= cfg.train.max_iter:
        log.info("All %d iterations are done: evaluating", start)
        _evaluate(cfg, model, domains, trainer, request)
        return

    def save(done: int) -> None:
        if comm.is_main_process():
            training = {**trainer.state_dict(), "settings": settings}
            checkpoints.save(model=model, iteration=done, training=training)

    log.info("Optimiser groups:\n%s", groups_table(optimizer))
    trainer.register_hooks(_hooks(cfg, model, domains, trainer, request, start, save))
    log.info(
        "Training on %s in %s, iterations %d to %d",
        device,
        trainer.dtype,
        start,
        cfg.train.max_iter,
    )
    try:
        trainer.train(start, cfg.train.max_iter)
    except FloatingPointError:  # raised before the weights are touched
        save(trainer.iter)
        comm.synchronize()  # else the first to end has the others killed
        raise


def _found(cfg, checkpoints: Checkpoints, resume: bool, log) -> tuple[Path, dict] | None:
    """The checkpoint to go on from, and the folder tidied of what killed runs left."""
    if not resume and checkpoints.paths():
        raise ValueError(
            f"{cfg.train.output_dir} holds the checkpoints of an earlier run: add --resume to go "
            "on with it, or choose another train.output_dir"
        )
    found = checkpoints.latest(log=log.warning)
    if resume and found is None:
        log.info("No checkpoint in %s: beginning with iteration 0", cfg.train.output_dir)
    # All have read before the main process tidies.
    seen = set(comm.all_gather(None if found is None else found[1]["iteration"]))
    if len(seen) > 1:
        raise ValueError(
            f"the processes of this run see different checkpoints in {cfg.train.output_dir}: to "
            "resume it must be on a file system that all machines share"
        )
    if comm.is_main_process():
        if found is not None:
            checkpoints.set_aside_after(found[0])
        for folder in (cfg.train.output_dir, Path(cfg.train.output_dir, "pictures")):
            remove_leftovers(folder)
    return found


def _build_to_train(cfg, found, device, log) -> tuple[int, nn.Module]:
    """The model to train and the iteration to begin with."""
    if found is not None:
        path, content = found
        if "optimizer" not in content:
            raise ValueError(
                f"{path} has weights alone and cannot be resumed: begin a run with them by "
                f"train.init_checkpoint={path} and another train.output_dir"
            )
        if changes := check_same_run(content.get("settings"), cfg, source=str(path)):
            log.warning(
                "Resuming with %s: from here on it is another run than one that never stopped",
                ", ".join(changes),
            )
        model = build_model(cfg, device=device, state=content["model"], source=str(path))
        log.info("Resuming from %s at iteration %d", path, content["iteration"])
        return content["iteration"], model
    initial = cfg.train.init_checkpoint
    if initial is None:
        return 0, build_model(cfg, device=device)
    return 0, build_from(cfg, read_checkpoint(initial), source=str(initial), device=device)


def _hooks(cfg, model, domains, trainer, request, start, save) -> list:
    output = Path(cfg.train.output_dir)

    def preview(done: int) -> None:
        if comm.is_main_process():
            with _averaged(trainer), predictor(model, dtype=trainer.dtype) as predict:
                preview_domains(
                    predict,
                    domains,
                    protocol=instantiate(cfg.evaluation.protocol),
                    path=output / "pictures" / f"iter_{done:07d}.png",
                )

    def evaluate_now(done: int) -> None:
        save(done)  # what is evaluated can be found, and stopping in the middle loses nothing
        _evaluate(cfg, model, domains, trainer, request)

    actions = [StepTimer()]
    if comm.is_main_process():
        writers = [
            ProgressLine(iterations=cfg.train.max_iter, logger=logging.getLogger(LOGGER)),
            MetricsFile(output / "metrics.json", start=start),
            TensorboardXWriter(str(output), window_size=WINDOW, purge_step=start),
        ]
        actions.append(WriteScalars(writers=writers, period=cfg.train.log_period))
    return [
        *actions,
        Every(action=save, period=cfg.train.checkpoint_period, last=True),
        StopBetweenSteps(request=request, save=save),
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
    which = f"iteration {content['iteration']}" + (", averaged weights" if "ema" in content else "")
    log.info("Evaluating %s (%s)", source, which)
    with predictor(model, dtype=amp_dtype(cfg.train.amp.dtype, device)) as predict:
        return _tabulate(cfg, predict, domains)


def _domains(cfg: DictConfig) -> dict[str, TestLoader]:
    """A loader per target domain; ``dataloader.test.NAME=null`` leaves one out."""
    loaders = cfg.dataloader.test.items()
    return {name: instantiate(loader) for name, loader in loaders if loader is not None}


def _check_protocol(cfg: DictConfig, domains: dict[str, TestLoader]) -> None:
    """Raise if the protocol makes no sense or says nothing about one of the sets."""
    protocol = instantiate(cfg.evaluation.protocol)
    for loader in domains.values():
        protocol.input_size(1024, 512, loader.metadata.benchmark)


def _evaluate(cfg, model, domains, trainer: Trainer, request: StopRequest) -> None:
    """Evaluate what the training has come to, unless the run is asked to stop meanwhile."""
    if trainer.average is not None:
        log = logging.getLogger(LOGGER)
        log.info("Evaluating the averaged weights (train.ema=%g)", trainer.average.decay)
    with _averaged(trainer), predictor(model, dtype=trainer.dtype) as predict:

        def predict_or_stop(images: torch.Tensor) -> torch.Tensor:
            request.check()
            return predict(images)

        try:
            _tabulate(cfg, predict_or_stop, domains)
        except RuntimeError as error:
            # Another process has stopped already, and this one waited for its share.
            if request.received and comm.get_world_size() > 1:
                raise Stopped from error
            raise


def _averaged(trainer: Trainer) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if trainer.average is None else trainer.average.applied()


def _tabulate(cfg: DictConfig, predict, domains: dict[str, TestLoader]) -> dict:
    return evaluate_domains(
        predict,
        domains,
        protocol=instantiate(cfg.evaluation.protocol),
        output_dir=cfg.train.output_dir,
        save_predictions=cfg.evaluation.get("save_predictions"),
    )
