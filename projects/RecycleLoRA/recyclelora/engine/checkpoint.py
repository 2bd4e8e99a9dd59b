"""Checkpoints of a run: tensors and plain types, written atomically, read with ``weights_only``.

:func:`read_checkpoint` reads the two formats that this package writes: checkpoints and files of
:func:`recyclelora.engine.trained.save_trained`. :mod:`recyclelora.backbone` reads pretrained
backbone weights in the formats of other projects.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.paths import expand_path
from recyclelora.common.state_dicts import describe_mismatch
from recyclelora.common.tensor_file import check_finite, read_tensor_file

from .trained import TRAINED

FORMAT = "recyclelora-checkpoint-1"
_NAME = re.compile(r"iter_(\d+)\.pth")


def save_checkpoint(
    path: str | Path,
    *,
    model: nn.Module,
    iteration: int,
    training: Mapping[str, object] | None = None,
) -> None:
    """Write a checkpoint atomically and flush it to the disk.

    Parameters
    ----------
    path : str or Path
        The file; its folder is created.
    model : nn.Module
        The model. Its state dict is stored with unmerged adapters.
    iteration : int
        The number of finished iterations, which is also the index of the next iteration.
    training : Mapping, optional
        Further state for resuming: tensors and plain types by name (see
        :meth:`Trainer.state_dict`).

    Raises
    ------
    OSError
        If the file cannot be written, for instance because the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "iteration": iteration, "model": model.state_dict()}
    with atomic_write(path, sync=True) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content | dict(training or {}), file)
        except RuntimeError as error:
            # torch's writer hides the operating system's error behind its own error.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_checkpoint(path: str | Path) -> dict:
    """Read a file of :func:`save_checkpoint` or :func:`save_trained` to the CPU.

    Reading executes no code from the file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict
        The content of the file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged, has another format, or contains values that are not finite.
    """
    path = expand_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: give the path of an existing .pth file")
    content = read_tensor_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():  # torch does not compare the checksums
                raise ValueError(f"{path} is damaged (in its part {broken}); use another copy")
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, TRAINED):
        raise ValueError(
            f"{path} is not a checkpoint of this program (expected format {FORMAT!r}); pretrained "
            "backbone weights belong in model.backbone.module.weights"
        )
    weights = content.get("trained" if content["format"] == TRAINED else "model")
    tensors = isinstance(weights, dict) and all(map(torch.is_tensor, weights.values()))
    if not tensors or not isinstance(content.get("iteration"), int):
        raise ValueError(f"{path} lacks the weights or the iteration; use another copy of it")
    check_finite(content, str(path))
    return content


def evaluated_weights(content: Mapping) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint that are evaluated.

    Parameters
    ----------
    content : Mapping
        The result of :func:`read_checkpoint`.

    Returns
    -------
    dict
        The state dict, with the averages (``train.ema``) in place of the weights if there are any.
    """
    return content["model"] | content.get("ema", {})


def load_model(
    model: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, assign: bool = False
) -> None:
    """Load the complete state of a model. If it does not fit, the model stays unchanged.

    Parameters
    ----------
    model : nn.Module
        The model.
    state : Mapping[str, Tensor]
        A result of :meth:`torch.nn.Module.state_dict`.
    source : str
        The origin of the state, for the error message.
    assign : bool
        Whether the model takes the tensors of ``state`` instead of copies. A model on the meta
        device needs this.

    Raises
    ------
    ValueError
        If names or shapes differ because the state belongs to another model.
    """
    own = model.state_dict()
    if mismatch := describe_mismatch(own, state):
        raise ValueError(
            f"{source} belongs to another model: {mismatch}. Use the config (sizes, ranks, "
            "classes) that it was trained with"
        )
    # The file may have another precision. Copying (without assign) would convert the tensors too.
    state = {name: value.to(own[name].dtype) for name, value in state.items()}
    model.load_state_dict(state, assign=assign)


class Checkpoints:
    """The checkpoints ``folder/iter_XXXXXXX.pth`` of a run, of which the newest are kept.

    Parameters
    ----------
    folder : str or Path
        The output folder of the run.
    keep : int
        The number of checkpoints to keep.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"expected to keep at least one checkpoint, got keep={keep}")
        self.folder = Path(folder)
        self.keep = keep
        self.saved: int | None = None  # the last saved iteration

    def path(self, iteration: int) -> Path:
        """Return the path of a checkpoint.

        Parameters
        ----------
        iteration : int
            The number of finished iterations.

        Returns
        -------
        Path
            The path.
        """
        return self.folder / f"iter_{iteration:07d}.pth"

    def paths(self) -> list[Path]:
        """Return the paths of all checkpoints.

        Returns
        -------
        list of Path
            The paths, oldest first.
        """
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)]
        return sorted(found, key=lambda p: int(_NAME.fullmatch(p.name)[1]))

    def save(
        self, *, model: nn.Module, iteration: int, training: Mapping[str, object] | None = None
    ) -> None:
        """Write a checkpoint and delete the oldest ones.

        A second call for the same iteration does nothing.

        Parameters
        ----------
        model : nn.Module
            The model.
        iteration : int
            The number of finished iterations.
        training : Mapping, optional
            Further state for resuming (see :func:`save_checkpoint`).
        """
        if iteration == self.saved:
            return
        path = self.path(iteration)
        save_checkpoint(path, model=model, iteration=iteration, training=training)
        self.saved = iteration
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def latest(self, log=print) -> tuple[Path, dict] | None:
        """Read the newest readable checkpoint.

        Damaged checkpoints are logged and skipped.

        Parameters
        ----------
        log : Callable
            The function that logs a message.

        Returns
        -------
        tuple of Path and dict, or None
            Path and content of the checkpoint; None if there are no checkpoints.

        Raises
        ------
        ValueError
            If there are checkpoints but none of them can be read.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return path, read_checkpoint(path)
            except ValueError as error:
                log(f"{error}; trying the previous checkpoint")
        if paths:
            raise ValueError(
                f"none of the {len(paths)} checkpoints in {self.folder} can be read: remove them "
                "to start again, or restore a copy"
            )
        return None

    def set_aside_after(self, path: Path) -> None:
        """Rename the checkpoints newer than ``path``, which are damaged, to ``NAME.damaged``.

        Renamed checkpoints do not count among the newest ones and are not overwritten.

        Parameters
        ----------
        path : Path
            The newest readable checkpoint.
        """
        for newer in self.paths()[self.paths().index(path) + 1 :]:
            newer.rename(newer.with_name(f"{newer.name}.damaged"))
