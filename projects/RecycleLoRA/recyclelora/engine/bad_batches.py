"""Handling of batches on which a step is not finite: they are saved and, if allowed, skipped."""

import logging
from pathlib import Path

import torch
from detectron2.utils import comm

from recyclelora.common.atomic_write import atomic_write

logger = logging.getLogger(__name__)


class BadBatches:
    """Save the batches on which a step is not finite, and count the skipped ones.

    Parameters
    ----------
    folder : str or Path
        The folder for ``bad_batch_ITERATION.pth``. The file contains ``{"iteration": int,
        "problem": str, "samples": [the global batch as the model received it]}`` with tensors and
        plain types only.
    allowed : int
        The number of batches that a run may skip (``train.skip_bad_batches``). One more ends the
        run.

    Attributes
    ----------
    skipped : list of int
        The skipped iterations, including those before a resume.
    """

    def __init__(self, folder: str | Path, *, allowed: int = 0):
        self.folder = Path(folder)
        self.allowed = allowed
        self.skipped: list[int] = []

    def put(self, share: list[dict], *, iteration: int, problem: FloatingPointError) -> None:
        """Save a batch and skip it. Every process must call this with its share of the batch.

        Parameters
        ----------
        share : list of dict
            The samples of this process.
        iteration : int
            The iteration of the batch.
        problem : FloatingPointError
            The error that the step raised.

        Raises
        ------
        FloatingPointError
            If no more batches may be skipped. The message lists the files of the batch.
        """
        samples = [sample for part in comm.all_gather(share) for sample in part]
        problems = "; ".join(dict.fromkeys(comm.all_gather(str(problem))))
        files = ", ".join(str(sample.get("file_name", "?")) for sample in samples)
        path = self.folder / f"bad_batch_{iteration:07d}.pth"
        if comm.is_main_process():
            content = {"iteration": iteration, "problem": problems, "samples": samples}
            with atomic_write(path) as temporary:
                torch.save(content, temporary)
        if len(self.skipped) >= self.allowed:
            raise FloatingPointError(
                f"{problems}; the batch of iteration {iteration} ({files}) is saved in {path}; "
                "the weights are those before this batch, and --resume continues from them; add "
                f"train.skip_bad_batches={self.allowed + 1} to skip the batch"
            )
        self.skipped.append(iteration)
        count = f"{len(self.skipped)} of at most {self.allowed}"
        logger.warning(
            f"iteration {iteration} is skipped, {count}: {problems} (batch: {files}; saved in "
            f"{path})"
        )
