"""Training of a model from a config, from the start or from the newest checkpoint."""

import contextlib
import errno
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from detectron2.engine.defaults import create_ddp_model
from detectron2.engine.hooks import HookBase, IterationTimer
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from recyclelora.common.atomic_write import remove_leftovers
from recyclelora.common.devices import pick_device
from recyclelora.config.objects import instantiate
from recyclelora.config.resume_check import check_same_run, run_settings
from recyclelora.data.loader import TestLoader
from recyclelora.data.workers import WaitInterrupted
from recyclelora.evaluation import preview_domains
from recyclelora.evaluation.partial import OtherEvaluationError
from recyclelora.evaluation.sliding_window import NonFiniteLogitsError

from .bad_batches import BadBatches
from .build import build_from_checkpoint, build_model
from .checkpoint import Checkpoints, read_checkpoint
from .compilation import compile_blocks
from .data_wait import WarnOfWaiting
from .ema import weight_average
from .evaluation import check_training_keys, describe_weights, evaluate_targets, target_loaders
from .hooks import PeriodicAction, WriteMetrics
from .loading import prepare_loaders
from .metrics import MetricsFile
from .output import LOGGER, lock_output, setup
from .param_groups import groups_table
from .predictor import predictor
from .progress import ProgressLine
from .stopping import StopBetweenSteps, Stopped, StopRequest
from .tensorboard import TensorBoard
from .trainer import Trainer, amp_dtype


def train(cfg: DictConfig, *, resume: bool = False) -> None:
    """Train the model of a config and evaluate it.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    resume : bool
        Whether to continue from the newest checkpoint in the output folder.

    Raises
    ------
    Stopped
        If SIGTERM or SIGINT arrived. The state has been saved.
    KeyboardInterrupt
        If SIGINT arrived before there was a state to save.
    ValueError
        For instance if another training writes to the folder or the run to resume has another
        config.
    OSError
        For instance if the disk is full. Earlier checkpoints remain complete.
    """
    check_training_keys(cfg)
    try:
        with StopRequest(saves=False) as request, lock_output(cfg.train.output_dir):
            _train(cfg, resume, request)
    except KeyboardInterrupt:
        if resume and Checkpoints(cfg.train.output_dir).paths():
            raise Stopped from None
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        saved = Checkpoints(cfg.train.output_dir).paths()
        begin = f", which continues from {saved[-1].name}" if saved else ""
        raise OSError(
            f"cannot write to {cfg.train.output_dir} ({error.strerror}): make room, then run the "
            f"command with --resume{begin}"
        ) from error


def _train(cfg: DictConfig, resume: bool, request: StopRequest) -> None:
    log, settings = setup(cfg), run_settings(cfg)
    device = pick_device(cfg.train.device)
    loaders = target_loaders(cfg)  # first, so that a missing target is reported before training
    checkpoints = Checkpoints(cfg.train.output_dir, keep=cfg.train.checkpoints_kept)
    found = find_checkpoint(cfg, checkpoints, resume, log)
    _clean_output(cfg, checkpoints, found)
    start, model = build_model_to_train(cfg, found, device, log)
    trainer = build_trainer(cfg, model, start, device)
    prepare_loaders(cfg, loaders, train=trainer.loader, request=request)
    if found is not None:
        trainer.load_state_dict(found[1])
        del found  # frees tensors of the size of the model

    def save(done: int) -> None:
        if comm.is_main_process():
            training = {**trainer.state_dict(), "settings": settings}
            checkpoints.save(model=model, iteration=done, training=training)

    def evaluate(done: int, *, resume: bool = False) -> dict:
        checkpoint = {"file": checkpoints.path(done).name, "iteration": done}
        return _evaluate(cfg, model, loaders, trainer, request, checkpoint, resume)

    if start >= cfg.train.max_iter:
        log.info("All %d iterations are done: evaluating", start)
        request.saves = True
        evaluate(start, resume=True)
        return
    board = _open_tensorboard(cfg, start)
    measure = partial(_measure, board, model)
    preview = partial(_preview, cfg, model, loaders, trainer, board)

    def save_and_evaluate(done: int) -> None:
        save(done)  # first, so that the evaluated weights are in a checkpoint
        _show_domains(board, evaluate(done), done)

    log.info("Optimiser groups:\n%s", groups_table(trainer.optimizer))
    trainer.register_hooks(
        [
            IterationTimer(warmup_iter=0),
            *_metric_hooks(cfg, start, board, trainer.loader),
            PeriodicAction(action=save, period=cfg.train.checkpoint_period, last=True),
            PeriodicAction(action=measure, period=cfg.train.checkpoint_period, last=True),
            StopBetweenSteps(request=request, save=save),
            PeriodicAction(action=preview, period=cfg.train.picture_period),
            PeriodicAction(action=save_and_evaluate, period=cfg.train.eval_period, last=True),
        ]
    )
    stop = cfg.train.max_iter
    log.info("Training on %s in %s, iterations %d to %d", device, trainer.dtype, start, stop)
    try:
        trainer.train(start, stop)
    except WaitInterrupted as error:  # raised while waiting for the next batch
        save(trainer.iter)
        raise Stopped from error
    except FloatingPointError:  # raised before the weights are changed
        save(trainer.iter)
        comm.synchronize()  # otherwise the first process to end terminates the others
        raise


def find_checkpoint(
    cfg: DictConfig, checkpoints: Checkpoints, resume: bool, log: logging.Logger
) -> tuple[Path, dict] | None:
    """Return path and content of the checkpoint to resume; they are equal in all processes.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    checkpoints : Checkpoints
        The checkpoints of the output folder.
    resume : bool
        Whether the run is to be resumed.
    log : logging.Logger
        The log.

    Returns
    -------
    tuple of Path and dict, or None
        Path and content; None for a run that starts from the beginning.
    """
    output = cfg.train.output_dir
    if not resume and checkpoints.paths():
        raise ValueError(
            f"{output} holds the checkpoints of an earlier run: add --resume to continue it, or "
            "choose another train.output_dir"
        )
    found = checkpoints.latest(log=log.warning)
    if resume and found is None:
        log.info("No checkpoint in %s: starting at iteration 0", output)
    seen = set(comm.all_gather(None if found is None else found[1]["iteration"]))
    if len(seen) > 1:
        raise ValueError(
            f"the processes of this run find different checkpoints in {output}: to resume, put it "
            "on a file system that all machines share"
        )
    return found


def _clean_output(
    cfg: DictConfig, checkpoints: Checkpoints, found: tuple[Path, dict] | None
) -> None:
    """Rename damaged checkpoints and remove the temporary files of killed runs.

    All processes have already read the checkpoints, because :func:`find_checkpoint` is collective.
    """
    if comm.is_main_process():
        if found is not None:
            checkpoints.set_aside_after(found[0])
        for folder in (cfg.train.output_dir, Path(cfg.train.output_dir, "pictures")):
            remove_leftovers(folder)


def build_model_to_train(
    cfg: DictConfig, found: tuple[Path, dict] | None, device: torch.device, log: logging.Logger
) -> tuple[int, nn.Module]:
    """Build the model to train.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    found : tuple of Path and dict, or None
        The result of :func:`find_checkpoint`.
    device : torch.device
        The device of the model.
    log : logging.Logger
        The log.

    Returns
    -------
    start : int
        The first iteration.
    model : nn.Module
        The model.
    """
    if found is not None:
        path, content = found
        if "optimizer" not in content:
            raise ValueError(
                f"{path} contains only weights, so it cannot be resumed: start a run from them "
                f"with train.init_checkpoint={path} and another train.output_dir"
            )
        if changes := check_same_run(content.get("settings"), cfg, source=str(path)):
            log.warning(
                "Resuming with %s: from here on, results differ from those of an uninterrupted run",
                ", ".join(changes),
            )
        model = build_model(cfg, device=device, state=content["model"], source=str(path))
        log.info("Resuming from %s at iteration %d", path, content["iteration"])
        return content["iteration"], model
    initial = cfg.train.init_checkpoint
    if initial is None:
        return 0, build_model(cfg, device=device)
    content = read_checkpoint(initial)
    return 0, build_from_checkpoint(cfg, content, source=str(initial), device=device)


def build_trainer(cfg: DictConfig, model: nn.Module, start: int, device: torch.device) -> Trainer:
    """Return a trainer that begins at iteration ``start``.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    model : nn.Module
        The model.
    start : int
        The first iteration.
    device : torch.device
        The device of the model.

    Returns
    -------
    Trainer
        The trainer.
    """
    if cfg.train.compile:
        compile_blocks(model, logging.getLogger(LOGGER))
    device_ids = [device.index] if device.type == "cuda" else None
    ddp = create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    cfg.optimizer.params.model = None
    cfg.dataloader.train.start_iteration = start
    return Trainer(
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


def _open_tensorboard(cfg: DictConfig, start: int) -> TensorBoard | None:
    """Return the writer of the main process, or None if its folder's name cannot be encoded."""
    if not comm.is_main_process():
        return None
    output = cfg.train.output_dir
    # TensorBoard encodes file names in UTF-8, independently of the locale.
    if os.fsencode(output) == output.encode(errors="surrogatepass"):
        return TensorBoard(output, start=start)
    log = logging.getLogger(LOGGER)
    log.warning("No TensorBoard events: in this locale their folder must have an ASCII name")
    return None


def _metric_hooks(
    cfg: DictConfig, start: int, board: TensorBoard | None, loader: object
) -> list[HookBase]:
    if not comm.is_main_process():
        return []
    log = logging.getLogger(LOGGER)
    writers = [
        ProgressLine(iterations=cfg.train.max_iter, logger=log),
        MetricsFile(Path(cfg.train.output_dir, "metrics.json"), start=start),
        *([] if board is None else [board]),
    ]
    return [
        WriteMetrics(writers=writers, period=cfg.train.log_period),
        WarnOfWaiting(loader=loader, logger=log),
    ]


def _evaluate(
    cfg: DictConfig,
    model: nn.Module,
    loaders: dict[str, TestLoader],
    trainer: Trainer,
    request: StopRequest,
    checkpoint: dict,
    resume: bool,
) -> dict:
    """Evaluate the current weights or their averages; a request to stop interrupts it."""
    log = logging.getLogger(LOGGER)
    if trainer.average is not None:
        log.info("Evaluating the averaged weights (train.ema=%g)", trainer.average.decay)
    with _averaged(trainer):
        weights = describe_weights(model)
    log.info(
        "Evaluating iteration %d (%s, weights sha256 %s)",
        checkpoint["iteration"], checkpoint["file"], weights["weights_sha256"],
    )  # fmt: skip
    with _averaged(trainer), predictor(model, dtype=trainer.dtype) as predict:

        def predict_or_stop(images: torch.Tensor) -> torch.Tensor:
            request.check()
            return predict(images)

        predict_or_stop.concurrent_calls = predict.concurrent_calls
        evaluate = partial(
            evaluate_targets, cfg, predict_or_stop, loaders, checkpoint=checkpoint | weights
        )
        try:
            try:
                return evaluate(resume=resume)
            except OtherEvaluationError as error:  # all processes raise this error
                log.warning("%s (this evaluation starts again)", error)
                return evaluate()
        except WaitInterrupted as error:
            raise Stopped from error
        except RuntimeError as error:
            # Another process has already stopped, and this one waited for its results.
            if request.received and comm.get_world_size() > 1:
                raise Stopped from error
            raise


def _show_domains(board: TensorBoard | None, result: Mapping, done: int) -> None:
    """Write the scores of an evaluation after ``done`` iterations to TensorBoard."""
    if board is not None:
        board.add_domains(result, done=done)


def _measure(board: TensorBoard | None, model: nn.Module, done: int) -> None:
    """Write measurements of the adapters after ``done`` iterations to TensorBoard."""
    if board is not None:
        board.add_adapters(model, done=done)


def _preview(
    cfg: DictConfig,
    model: nn.Module,
    loaders: dict[str, TestLoader],
    trainer: Trainer,
    board: TensorBoard | None,
    done: int,
) -> None:
    """Draw the first image of each target in the main process, after ``done`` iterations."""
    if not comm.is_main_process():
        return
    path = Path(cfg.train.output_dir, "pictures", f"iter_{done:07d}.png")
    protocol = instantiate(cfg.evaluation.protocol)
    with _averaged(trainer), predictor(model, dtype=trainer.dtype) as predict:
        try:
            preview_domains(predict, loaders, protocol=protocol, path=path)
        except NonFiniteLogitsError as error:  # a failed preview must not end the training
            log = logging.getLogger(LOGGER)
            log.warning("no preview at iteration %d: %s", done, error)
            return
    if board is not None:
        board.add_preview(path, done=done)


def _averaged(trainer: Trainer) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if trainer.average is None else trainer.average.applied()
