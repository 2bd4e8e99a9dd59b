"""One training step: gradient accumulation, mixed precision, schedules, a stop at a bad loss."""

import contextlib
import time
from collections.abc import Callable, Iterable

import torch
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn

AMP_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def amp_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of autocast: ``float32`` (none), ``bfloat16``, ``float16``, or ``auto``.

    ``auto`` is bfloat16 where the device computes in it natively, else float32.

    Raises:
        ValueError: another name.
    """
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    if name not in AMP_DTYPES:
        raise ValueError(
            f"train.amp.dtype must be auto or one of {sorted(AMP_DTYPES)}, got {name!r}"
        )
    return AMP_DTYPES[name]


class Trainer(TrainerBase):
    """Runs the iterations of one training; hooks do everything that is not the step itself.

    Args:
        model: called with a list of samples, returns a dict of losses; may be wrapped in DDP.
        loader: yields this process's share of every global batch, a list of samples.
        optimizer: its groups come from :func:`parameter_groups`.
        schedule: called with (optimizer, iteration) before every step.
        dtype: autocast dtype; float32 means no autocast.
        accumulate: the batch is split into that many parts whose gradients are averaged. The
            losses' normalisers are then those of a part, as for a smaller batch.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[torch.optim.Optimizer, int], None],
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
        self.dtype = dtype
        self.accumulate = accumulate
        self.device = next(model.parameters()).device
        # float16 gradients underflow without scaling; the others need none.
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=dtype == torch.float16, init_scale=2.0**14
        )
        self._batches = None

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter`` .. ``max_iter - 1`` with their hooks.

        Detectron2's own loop, but for the traceback that it logs at an error: what is wrong with an
        input is one sentence, and the caller's to say.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = max_iter
            finally:
                self.after_train()

    def run_step(self) -> None:
        """Train on the next batch."""
        if self._batches is None:
            self._batches = iter(self.loader)
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        self.schedule(self.optimizer, self.iter)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(batch)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._log(losses, data_time)

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
                total = sum(losses.values())
                self._check_finite(total, part)
                self.scaler.scale(total).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach()
        return sums

    def _check_finite(self, total: torch.Tensor, part: list[dict]) -> None:
        if not torch.isfinite(total):
            files = ", ".join(str(sample.get("file_name", "?")) for sample in part)
            raise FloatingPointError(
                f"the loss is {total.item()} at iteration {self.iter} on {files}: lower the "
                "learning rate, use train.amp.dtype=float32, or inspect these images"
            )

    def _log(self, losses: dict[str, torch.Tensor], data_time: float) -> None:
        stacked = torch.stack([loss.float() for loss in losses.values()])
        values = dict(zip(losses, stacked.tolist(), strict=True))  # one transfer from the device
        shares = comm.gather({"values": values, "data_time": data_time})
        if not comm.is_main_process():
            return
        storage = get_event_storage()
        storage.put_scalar("data_time", max(share["data_time"] for share in shares))
        means = {
            name: sum(share["values"][name] for share in shares) / len(shares) for name in values
        }
        storage.put_scalar("total_loss", sum(means.values()))
        if len(means) > 1:
            storage.put_scalars(**means)
        storage.put_scalar("lr", self.optimizer.param_groups[0]["lr"], smoothing_hint=False)
