"""Batches on which a step is not finite: kept for inspection, left out if asked, else the end."""

import logging
from pathlib import Path

import torch
from detectron2.utils import comm

from recyclelora.common.atomic_write import atomic_write

logger = logging.getLogger(__name__)


class BadBatches:
    """What to do with them, and those that were left out so far.

    Args:
        folder: where ``bad_batch_ITERATION.pth`` goes: ``{"iteration": int, "problem": str,
            "samples": [the whole global batch as the model got it]}``, tensors and plain types.
        allowed: how many of a run are left out before one ends it (``train.skip_bad_batches``).

    Attributes:
        skipped: the iterations left out, resumed ones included.
    """

    def __init__(self, folder: str | Path, *, allowed: int = 0):
        self.folder = Path(folder)
        self.allowed = allowed
        self.skipped: list[int] = []

    def put(self, share: list[dict], *, iteration: int, problem: FloatingPointError) -> None:
        """Save the batch and count it; every process calls this with its share of the batch.

        Raises:
            FloatingPointError: no more may be left out; one sentence that names the batch's files.
        """
        samples = [sample for part in comm.all_gather(share) for sample in part]
        said = "; ".join(dict.fromkeys(comm.all_gather(str(problem))))
        files = ", ".join(str(sample.get("file_name", "?")) for sample in samples)
        path = self.folder / f"bad_batch_{iteration:07d}.pth"
        content = {"iteration": iteration, "problem": said, "samples": samples}
        if comm.is_main_process():
            with atomic_write(path) as temporary:
                torch.save(content, temporary)
        if len(self.skipped) < self.allowed:
            self.skipped.append(iteration)
            logger.warning(
                "iteration %d is left out, %d of at most %d: %s (batch: %s; saved in %s)",
                iteration,
                len(self.skipped),
                self.allowed,
                said,
                files,
                path,
            )
            return
        raise FloatingPointError(
            f"{said}; the batch of iteration {iteration} ({files}) is saved in {path}, the weights "
            "are as before it, and --resume goes on from there, without this batch if given "
            f"train.skip_bad_batches={self.allowed + 1}"
        )
