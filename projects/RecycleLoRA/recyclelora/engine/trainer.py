"""The training loop: schedules, mixed precision, gradient accumulation, checks of finiteness."""

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

from .bad_batches import BadBatches
from .ema import WeightAverage
from .metrics import recent_history, restore_history

AMP_DTYPES = ("bfloat16", "float16", "float32")


def amp_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the autocast dtype for the setting ``train.amp.dtype``; float32 disables autocast.

    Parameters
    ----------
    name : str
        "auto", "float32", "bfloat16" or "float16". With "auto" the result is bfloat16 if the device
        supports it natively, and float32 otherwise.
    device : torch.device
        The device.

    Returns
    -------
    torch.dtype
        The dtype.

    Raises
    ------
    ValueError
        If ``name`` has another value.
    """
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    if name not in AMP_DTYPES:
        raise ValueError(f"train.amp.dtype must be auto or one of {list(AMP_DTYPES)}, got {name!r}")
    return getattr(torch, name)


class Trainer(TrainerBase):
    """Run the iterations of a training. Hooks do everything except the step itself.

    A step is a pure function of the state (:meth:`state_dict` and the model) and the iteration, so
    resuming a run does not change its result. If a loss or gradient is not finite in any process,
    no process updates its weights. Detectron2's ``SimpleTrainer`` and ``AMPTrainer`` have neither
    property.

    Parameters
    ----------
    model : nn.Module
        Model that maps a list of samples to a dict of losses; may be wrapped in DDP.
    loader : Iterable[list[dict]]
        Loader that yields this process's share of every global batch.
    optimizer : torch.optim.Optimizer
        Optimiser with the groups of :func:`parameter_groups`.
    schedule : Callable
        Function that is called with (optimizer, iteration) before every step.
    bad_batches : BadBatches
        Object that receives the batches on which a step is not finite.
    average : WeightAverage, optional
        Average that is updated after every step.
    seed : int
        The seed of the global generators, for instance for dropout. Before every step they are
        seeded with the seed, the iteration and the rank.
    dtype : torch.dtype
        The dtype of autocast; float32 disables autocast.
    accumulate : int
        The number of parts into which a batch is split. Their gradients are averaged. Losses are
        normalised per part, as for a smaller batch.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[torch.optim.Optimizer, int], None],
        bad_batches: BadBatches,
        average: WeightAverage | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        accumulate: int = 1,
    ):
        super().__init__()
        if accumulate < 1:
            raise ValueError(f"expected train.accumulate of at least 1, got {accumulate}")
        model.train()
        self.model = model
        self.loader = loader
        self.optimizer = optimizer
        self.schedule = schedule
        self.bad_batches = bad_batches
        self.average = average
        self.seed = seed
        self.dtype = dtype
        self.accumulate = accumulate
        self.device = next(model.parameters()).device
        # Gradients in float16 underflow without scaling. Other dtypes need no scaling.
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=dtype == torch.float16, init_scale=2.0**14
        )
        self._batches = None
        self._history = {}

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter`` .. ``max_iter - 1`` with their hooks.

        The loop is that of Detectron2 without the traceback that Detectron2 logs after an error,
        because the command line prints errors in one sentence.

        Parameters
        ----------
        start_iter : int
            The first iteration.
        max_iter : int
            The number of iterations of the whole run.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            restore_history(self.storage, self._history)
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = max_iter
            finally:
                self._batches = None  # stops the worker processes
                self.after_train()

    def state_dict(self) -> dict:
        """Return the state without model and iteration, as tensors and plain types."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": recent_history(self.storage),
            "skipped": list(self.bad_batches.skipped),
        }
        if self.average is not None:
            state["ema"] = self.average.state_dict()
        return state

    def load_state_dict(self, state: Mapping) -> None:
        """Load the result of :meth:`state_dict`. A missing average is left unchanged.

        Parameters
        ----------
        state : Mapping
            The state.

        Raises
        ------
        ValueError
            If the state belongs to another model or optimiser.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.bad_batches.skipped = list(state.get("skipped", []))
        self._history = state.get("history", {})
        if self.average is not None and "ema" in state:
            self.average.load_state_dict(state["ema"])

    def run_step(self) -> None:
        """Train on the next batch."""
        if self._batches is None:
            self._batches = iter(self.loader)
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        _seed_generators(self.seed, self.iter, comm.get_rank())
        self.schedule(self.optimizer, self.iter)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            losses = self._mean_losses(self._backward(batch))
            self._check_finite(losses)
        except FloatingPointError as problem:  # all processes raise this error
            self.bad_batches.put(batch, iteration=self.iter, problem=problem)
            return
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.iter)
        self._log(losses, data_time)

    def probe(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        """Run a forward and a backward pass on a batch without an optimiser step.

        The gradients are added to those of the parameters. Every process must call this method.

        Parameters
        ----------
        batch : list of dict
            The samples of this process.

        Returns
        -------
        dict
            The losses by name.
        """
        with (
            EventStorage(0),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            losses = self.model(batch)
        sum(losses.values()).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _backward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        if len(batch) % self.accumulate:
            raise ValueError(
                f"a batch of {len(batch)} images cannot be split into train.accumulate="
                f"{self.accumulate} equal parts: choose a divisor of the batch per process"
            )
        size = len(batch) // self.accumulate
        sums: dict[str, torch.Tensor] = {}
        for i in range(self.accumulate):
            part = batch[i * size : (i + 1) * size]
            last = i == self.accumulate - 1
            no_sync = getattr(self.model, "no_sync", contextlib.nullcontext)
            with contextlib.nullcontext() if last else no_sync():
                autocast = torch.autocast(
                    self.device.type, self.dtype, enabled=self.dtype != torch.float32
                )
                with autocast:
                    losses = self.model(part)
                losses = {name: loss / self.accumulate for name, loss in losses.items()}
                self.scaler.scale(sum(losses.values())).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach()
        return sums

    @staticmethod
    def _mean_losses(losses: dict[str, torch.Tensor]) -> dict[str, float]:
        """Average the losses over the processes."""
        stacked = torch.stack([loss.float() for loss in losses.values()])
        shares = comm.all_gather(stacked.tolist())  # one transfer from the device
        means = [sum(values) / len(shares) for values in zip(*shares, strict=True)]
        return dict(zip(losses, means, strict=True))

    def _check_finite(self, losses: dict[str, float]) -> None:
        """Raise an error if the losses or gradients are not finite; all processes agree.

        With float16, the scaler checks the gradients, because some of them overflow regularly.
        """
        total = sum(losses.values())
        problem = None if math.isfinite(total) else f"the loss is {total}"
        if problem is None and not self.scaler.is_enabled():
            gradients = [p.grad for g in self.optimizer.param_groups for p in g["params"]]
            norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
            problem = None if torch.isfinite(norm) else f"the norm of the gradient is {norm:g}"
        if problem is not None:
            raise FloatingPointError(
                f"{problem} at iteration {self.iter}: lower the learning rate, train in float32, "
                "or inspect the images"
            )

    def _log(self, losses: dict[str, float], data_time: float) -> None:
        slowest = max(comm.all_gather(data_time))
        if not comm.is_main_process():
            return
        storage = get_event_storage()
        storage.put_scalar("data_time", slowest)
        storage.put_scalar("total_loss", sum(losses.values()))
        if len(losses) > 1:
            storage.put_scalars(**losses)
        storage.put_scalar("lr", self.optimizer.param_groups[0]["lr"], smoothing_hint=False)


def _seed_generators(*key: int) -> None:
    """Seed the global generators with ``key``."""
    (seed,) = np.random.SeedSequence(key).generate_state(1)
    torch.manual_seed(int(seed))
    np.random.seed(seed)  # noqa: NPY002  (Detectron2 uses it)
    random.seed(int(seed))
