"""The progress line of a training: iteration, losses, speed and remaining time."""

import datetime
import logging

import torch
from detectron2.utils.events import EventWriter, get_event_storage

from .metrics import WINDOW

LAST_LAYER = {"class": "loss_ce", "mask": "loss_mask", "dice": "loss_dice"}


class ProgressLine(EventWriter):
    """Log the progress of a training in one line.

    Detectron2's ``CommonMetricPrinter`` is not used because it prints all thirty losses of
    Mask2Former. This line has their sum and the three losses of the last decoder layer.

    Parameters
    ----------
    iterations : int
        The number of iterations of the run, for the remaining time.
    logger : logging.Logger
        The logger for the line.
    """

    def __init__(self, *, iterations: int, logger: logging.Logger):
        self.iterations = iterations
        self.logger = logger

    def write(self) -> None:
        """Log the line of the current iteration."""
        storage = get_event_storage()
        latest = storage.latest_with_smoothing_hint(window_size=WINDOW)
        scalars = {name: value for name, (value, _) in latest.items()}
        parts = [f"iteration {storage.iter + 1}/{self.iterations}"]
        if "total_loss" in scalars:
            last = [f"{k} {scalars[v]:.3f}" for k, v in LAST_LAYER.items() if v in scalars]
            detail = f" ({', '.join(last)})" if last else ""
            parts.append(f"loss {scalars['total_loss']:.3f}{detail}")
        if "lr" in scalars:
            parts.append(f"lr {scalars['lr']:.2e}")
        if "time" in scalars:
            seconds = scalars["time"]
            left = datetime.timedelta(seconds=round(seconds * (self.iterations - storage.iter - 1)))
            parts.append(f"{seconds:.2f} s each (data {scalars.get('data_time', 0):.2f})")
            parts.append(f"{left} left")
        if torch.cuda.is_available():
            parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        self.logger.info("  ".join(parts))
