"""One line a while: iteration, losses of the last decoder layer, speed, and time left."""

import datetime
import logging

import torch
from detectron2.utils.events import EventWriter, get_event_storage

from .metrics import WINDOW

LAST_LAYER = {"class": "loss_ce", "mask": "loss_mask", "dice": "loss_dice"}


class ProgressLine(EventWriter):
    """Logs the progress of a training; Mask2Former's thirty losses are shortened to four numbers.

    Args:
        iterations: the number of iterations of the run, from which the time left follows.
        logger: where the line goes.
    """

    def __init__(self, *, iterations: int, logger: logging.Logger):
        self.iterations = iterations
        self.logger = logger

    def write(self) -> None:
        """Log the line of the current iteration."""
        storage = get_event_storage()
        scalars = storage.latest_with_smoothing_hint(window_size=WINDOW)

        def smoothed(name: str) -> float | None:
            return scalars[name][0] if name in scalars else None

        parts = [f"iteration {storage.iter + 1}/{self.iterations}"]
        total = smoothed("total_loss")
        if total is not None:
            last = {label: smoothed(name) for label, name in LAST_LAYER.items()}
            detail = ", ".join(f"{k} {v:.3f}" for k, v in last.items() if v is not None)
            parts.append(f"loss {total:.3f}" + (f" ({detail})" if detail else ""))
        if smoothed("lr") is not None:
            parts.append(f"lr {smoothed('lr'):.2e}")
        seconds = smoothed("time")
        if seconds is not None:
            left = datetime.timedelta(seconds=round(seconds * (self.iterations - storage.iter - 1)))
            parts.append(f"{seconds:.2f} s each (data {smoothed('data_time') or 0:.2f})")
            parts.append(f"{left} left")
        if torch.cuda.is_available():
            parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        self.logger.info("  ".join(parts))
