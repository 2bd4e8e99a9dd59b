"""The option ``--check``: validate and describe a run without training or writing anything."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from recyclelora.common.devices import pick_device
from recyclelora.config.objects import instantiate
from recyclelora.config.walk import walk
from recyclelora.data.loader import TestLoader
from recyclelora.data.workers import BatchLoader
from recyclelora.evaluation import Protocol

from .build import build_from_checkpoint
from .checkpoint import Checkpoints, read_checkpoint
from .evaluation import check_training_keys, find_evaluated, target_loaders
from .loading import prepare_loaders
from .memory import PeakMemory, available_memory, limited_memory
from .output import LOGGER
from .predictor import predictor
from .trainer import Trainer, amp_dtype
from .training import build_model_to_train, build_trainer, find_checkpoint

_GIB = 2**30


def check_run(cfg: DictConfig, *, resume: bool = False, eval_only: bool = False) -> str:
    """Validate everything that a run needs, and describe the run.

    Datasets, weights and checkpoints are loaded as in the run. This includes the comparison of the
    shared memory that the data workers need with the free space in /dev/shm. The function reads the
    first batch and the first image of each target. It runs a forward and a backward pass on one
    image of the batch, and a forward pass on one batch of windows. From these it estimates the
    memory of a whole step. It changes no weight and writes no file.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.
    resume, eval_only : bool
        The options of the run.

    Returns
    -------
    str
        A few lines that describe what the run would do.

    Raises
    ------
    FileNotFoundError, ValueError
        If something is missing or invalid; the message describes it in one sentence.
    FloatingPointError
        If the losses or their gradients are not finite.
    """
    log = logging.getLogger(LOGGER)
    device = pick_device(cfg.train.device)
    dtype = amp_dtype(cfg.train.amp.dtype, device)
    if not eval_only:
        check_training_keys(cfg)
    _check_writable(Path(cfg.train.output_dir))
    loaders = target_loaders(cfg)
    with limited_memory(device):
        if eval_only:
            source = find_evaluated(cfg, log)
            content = read_checkpoint(source)
            model = build_from_checkpoint(cfg, content, source=str(source), device=device)
            lines = [f"would evaluate {source} (iteration {content['iteration']})"]
        else:
            trainer, model, lines = _check_training(cfg, loaders, resume, device, log)
        lines += _check_evaluation(cfg, model, loaders, dtype)
        if not eval_only:
            trainer.model.train()
    world = comm.get_world_size()
    where = f"{world} processes, each on {device}" if world > 1 else f"{device}"
    precision = str(dtype).removeprefix("torch.")
    return "\n".join(["the run is valid; nothing was trained or written", *lines,
                      f"on {where}, in {precision}, into {cfg.train.output_dir}"])  # fmt: skip


def _nearest_folder(folder: Path) -> Path:
    """Return ``folder`` or its nearest parent that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _check_writable(folder: Path) -> None:
    """Raise an error if ``folder`` cannot be written or created; nothing is written."""
    existing = _nearest_folder(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = "cannot be written" if existing.is_dir() else "is not a folder"
        raise ValueError(
            f"train.output_dir={folder} must be a folder to write to, but {existing} {problem}; "
            "choose another one"
        )


def _check_training(
    cfg: DictConfig,
    loaders: dict[str, TestLoader],
    resume: bool,
    device: torch.device,
    log: logging.Logger,
) -> tuple[Trainer, nn.Module, list[str]]:
    found = find_checkpoint(cfg, Checkpoints(cfg.train.output_dir), resume, log)
    start, model = build_model_to_train(cfg, found, device, log)
    trainer = build_trainer(cfg, model, start, device)
    prepare_loaders(cfg, loaders, train=trainer.loader)
    if found is not None:
        trainer.load_state_dict(found[1])
    if start >= cfg.train.max_iter:
        return trainer, model, [f"all {start:,} iterations of {found[0]} are done"]
    loader = trainer.loader
    if isinstance(loader, BatchLoader):  # read one image first, because a batch may not fit
        sample, images = loader.dataset[0], f" of {len(loader.dataset.records):,}"
    else:
        sample, images = next(iter(loader))[0], ""
    memory = _check_step(cfg, trainer, sample, device)
    next(iter(loader))  # read a whole batch with the workers
    total, trained = (
        sum(p.numel() for p in model.parameters() if p.requires_grad or not only)
        for only in (False, True)
    )
    origin = found[0] if found is not None else cfg.train.init_checkpoint or _weights(cfg)
    return (
        trainer,
        model,
        [
            f"would train iterations {start:,} to {cfg.train.max_iter:,} from {origin}, "
            f"{cfg.dataloader.train.total_batch_size:,}{images} images each",
            f"model: {total:,} parameters, of which {trained:,} are trained",
            memory,
            _check_disk(cfg, trainer, start),
        ],
    )


def _check_disk(cfg: DictConfig, trainer: Trainer, start: int) -> str:
    """Compare the free space with the size of the kept checkpoints and a temporary file."""
    checkpoints = Checkpoints(cfg.train.output_dir, keep=cfg.train.checkpoints_kept)
    trained = sum(p.nbytes for group in trainer.optimizer.param_groups for p in group["params"])
    copies = 2 if trainer.average is None else 3  # AdamW's two moments, and averaged weights
    model = sum(tensor.nbytes for tensor in trainer.model.state_dict().values())
    size, period = model + copies * trained, cfg.train.checkpoint_period
    saves = -(-(cfg.train.max_iter - start) // period) if period else 1
    present = sum(path.stat().st_size for path in checkpoints.paths())
    need = max(size * min(saves, checkpoints.keep + 1) - present, size)
    folder = _nearest_folder(checkpoints.folder)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(
            f"the checkpoints need about {need / _GIB:.2f} GiB ({size / _GIB:.2f} each), but "
            f"{folder} has {free / _GIB:.2f} GiB free: make room, choose another train.output_dir, "
            "or lower train.checkpoints_kept"
        )
    return (
        f"disk: checkpoints of about {size / _GIB:.2f} GiB need {need / _GIB:.2f} GiB, and "
        f"{free / _GIB:.1f} GiB are free"
    )


def _weights(cfg: DictConfig) -> str:
    """Return the names or files of the pretrained weights of a model."""
    names = [value for key, value in walk(cfg.model, "model") if key.endswith(".weights")]
    return ", ".join(str(name) for name in names if name is not None) or "random weights"


def _check_step(cfg: DictConfig, trainer: Trainer, sample: dict, device: torch.device) -> str:
    """Run a forward and a backward pass on one image; check that a step fits into memory."""
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    size = sum(p.numel() * p.element_size() for p in parameters)
    batch = cfg.dataloader.train.total_batch_size // comm.get_world_size()
    images = max(batch // trainer.accumulate, 1)
    kept = _KeptTensors(trainer.model)
    with PeakMemory(device) as peak, kept:
        losses = trainer.probe([sample])
    trainer.optimizer.zero_grad(set_to_none=True)
    if not all(torch.isfinite(loss) for loss in losses.values()):
        raise FloatingPointError(
            f"the losses of {sample['file_name']} are not finite in "
            f"{str(trainer.dtype).removeprefix('torch.')}: train in float32, or inspect the image"
        )
    # The peak includes the gradients, but not memory that this process freed and used again.
    one = max(peak.beyond - size, kept.bytes)
    need, free = images * one + 3 * size, available_memory(device)  # AdamW has two moments
    if need > free:
        raise ValueError(
            f"a step needs about {need / _GIB:.1f} GiB in addition to the model ({images:,} images "
            f"of {one / _GIB:.2f} GiB, and {3 * size / _GIB:.2f} for gradients and optimiser), but "
            f"{device} has {free / _GIB:.1f} GiB free: lower dataloader.train.total_batch_size or "
            "the crop, or set train.accumulate or train.checkpointing=True"
        )
    return (
        f"memory: a step needs about {need / _GIB:.2f} GiB in addition to the model, and "
        f"{free / _GIB:.1f} GiB are free"
    )


class _KeptTensors(saved_tensors_hooks):
    """Context manager that counts the bytes that a forward pass saves for its backward pass."""

    def __init__(self, model: nn.Module):
        own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        self._sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                self._sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        super().__init__(pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())


def _check_evaluation(
    cfg: DictConfig, model: nn.Module, loaders: dict[str, TestLoader], dtype: torch.dtype
) -> list[str]:
    """Segment the first image of each target; the model is called once per input shape."""
    protocol: Protocol = instantiate(cfg.evaluation.protocol)
    with predictor(model, dtype=dtype) as predict:
        once = _once_a_shape(predict)
        for loader in loaders.values():
            if len(loader.records):
                protocol.segment(once, loader.dataset[0], loader.metadata.benchmark)
    images = ", ".join(f"{name} ({len(loader.records):,})" for name, loader in loaders.items())
    return [f"would evaluate on {images or 'no target'} by protocol {protocol}"]


def _once_a_shape(predict: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function that predicts once per shape of images and then repeats the result."""
    known: dict[tuple[int, ...], Tensor] = {}

    def predict_once(images: Tensor) -> Tensor:
        shape = tuple(images.shape)
        if shape not in known:
            known[shape] = predict(images)
        return known[shape]

    return predict_once
