"""The output folder of a run.

A run writes these files to ``train.output_dir``:

======================  ==========================================================================
``training.lock``       locked while a training writes to the folder; contains its process
``config.yaml``         the config, with its overrides
``log.txt``             the log; the other processes write ``log.txt.rankN``
``metrics.json``        the loss curve, one JSON object per line; ``events.out.tfevents.*`` for
                        TensorBoard
``iter_XXXXXXX.pth``    checkpoints by finished iterations, the newest ``train.checkpoints_kept``
``pictures/``           previews during the training, and images of each evaluated domain
``domains.json``        the scores of the evaluation, with ``one_class.json``, ``images.json``,
                        ``confusion.json``, ``domains.png``, ``best_and_worst.png`` (see
                        ``evaluate_domains``)
``domains.partial.*``   the finished targets of an evaluation that has not ended
``predictions/``        class maps, with ``evaluation.save_predictions``
``bad_batch_*.pth``     batches on which a step was not finite
``error.txt``           the traceback of the error that ended the last run
======================  ==========================================================================

**State after a killed run.** Checkpoints, JSON files and pictures are written atomically, so each
file is complete or has its previous content. A killed process may leave a temporary file
``.NAME.PROCESS.tmp`` and an incomplete last line in ``metrics.json``. The next run into the folder
(``--resume``) removes both and renames checkpoints that cannot be read to ``NAME.damaged``. It
continues from the newest readable checkpoint, and its result is bitwise equal to that of a run that
was never killed. The operating system releases the lock.

A training that receives SIGTERM or Ctrl-C finishes its step and saves a checkpoint before it stops.
Before the first step, and in an evaluation with ``--eval-only``, Ctrl-C ends the run at once.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.folder_lock import FolderLockedError, folder_lock
from recyclelora.config.objects import config_text

LOGGER = "recyclelora.run"
LOCK = "training.lock"


def setup(cfg: DictConfig) -> logging.Logger:
    """Create the output folder, start its log and seed the random generators of the libraries.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.

    Returns
    -------
    logging.Logger
        The log.

    Raises
    ------
    ValueError
        If the folder cannot be written.
    """
    output = Path(cfg.train.output_dir)
    with _require_writable(output):
        output.mkdir(parents=True, exist_ok=True)
        for name in ("recyclelora", "detectron2", "fvcore"):
            logger = setup_logger(str(output / "log.txt"), comm.get_rank(), name=name)
            logger.setLevel(logging.INFO)
            for handler in logger.handlers:
                if str(getattr(handler.stream, "name", "")).startswith(str(output)):
                    # Detectron2 opens the file with the encoding of the locale.
                    handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        if comm.is_main_process():
            with atomic_write(output / "config.yaml") as temporary:
                text = config_text(cfg).encode(errors="backslashreplace")
                temporary.write_bytes(text)
    seed_all_rng(cfg.train.seed)
    return logging.getLogger(LOGGER)


@contextlib.contextmanager
def lock_output(folder: str | Path) -> Iterator[None]:
    """Lock ``folder`` against other trainings, also on other machines that share it.

    The main process holds the lock. All processes of the run must call this function, and all of
    them raise the error if the folder is locked.

    Parameters
    ----------
    folder : str or Path
        The output folder.

    Raises
    ------
    ValueError
        If another training writes to the folder, or the folder cannot be written.
    """
    folder, problem = Path(folder), None
    with contextlib.ExitStack() as stack:
        if comm.is_main_process():
            try:
                with _require_writable(folder):
                    stack.enter_context(folder_lock(folder, name=LOCK))
            except FolderLockedError as error:
                problem = (
                    f"another training writes to {folder} ({error.holder}): wait for it, stop it, "
                    "or choose another train.output_dir"
                )
            except ValueError as error:
                problem = str(error)
        problem = next(filter(None, comm.all_gather(problem)), None)
        if problem is not None:
            raise ValueError(problem)
        yield


@contextlib.contextmanager
def _require_writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"train.output_dir={folder} must be a folder to write to, got an error "
            f"({error.strerror}): choose another one"
        ) from error
