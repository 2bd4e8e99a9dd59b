"""Checkpoints of a run: tensors and plain types, written atomically, read with ``weights_only``.

:func:`read_checkpoint` reads the two formats that this package writes: checkpoints, and the files
of :func:`recyclelora.engine.trained.save_trained`. Pretrained backbone weights in the formats of
other projects are read by :mod:`recyclelora.backbone`.
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
    """Write a checkpoint atomically and sync it.

    Parameters
    ----------
    path : str or Path
        The file; its folder is created.
    model : nn.Module
        Its state dict is stored, with unmerged adapters.
    iteration : int
        Number of finished iterations, which is the next one to run.
    training : Mapping, optional
        Further state for resuming, tensors and plain types by name (see
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
            # torch's writer replaces the operating system's error with one of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_checkpoint(path: str | Path) -> dict:
    """Read a file of :func:`save_checkpoint` or :func:`save_trained` to the CPU.

    Nothing in the file is executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, has another format, or holds values that are not finite.
    """
    path = expand_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: give the path of an existing .pth file")
    content = read_tensor_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():  # torch does not compare the checksums
                raise ValueError(f"{path} is damaged (in its part {broken}); take another copy")
    if not isinstance(content, dict) or content.get("format") not in (FORMAT, TRAINED):
        raise ValueError(
            f"{path} is not a checkpoint of this program (expected format {FORMAT!r}); pretrained "
            "backbone weights belong in model.backbone.module.weights"
        )
    weights = content.get("trained" if content["format"] == TRAINED else "model")
    tensors = isinstance(weights, dict) and all(map(torch.is_tensor, weights.values()))
    if not tensors or not isinstance(content.get("iteration"), int):
        raise ValueError(f"{path} lacks the weights or the iteration; take another copy of it")
    check_finite(content, str(path))
    return content


def evaluated_weights(content: Mapping) -> dict[str, torch.Tensor]:
    """Return the state dict of a checkpoint to evaluate, with averages (``train.ema``) if any."""
    return content["model"] | content.get("ema", {})


def load_model(
    model: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, assign: bool = False
) -> None:
    """Load a model's complete state, or raise and leave the model unchanged.

    Parameters
    ----------
    model : nn.Module
    state : Mapping[str, Tensor]
        Of :meth:`torch.nn.Module.state_dict`.
    source : str
        Where the state comes from, for the error message.
    assign : bool
        Whether the model holds the tensors of ``state`` themselves, which a model on the meta
        device needs.

    Raises
    ------
    ValueError
        If names or shapes differ: the state belongs to another model.
    """
    own = model.state_dict()
    if mismatch := describe_mismatch(own, state):
        raise ValueError(
            f"{source} belongs to another model: {mismatch}. Use the config (sizes, ranks, "
            "classes) that it was trained with"
        )
    # A file can have another precision; without assign they are copied, which converts them too.
    state = {name: value.to(own[name].dtype) for name, value in state.items()}
    model.load_state_dict(state, assign=assign)


class Checkpoints:
    """The checkpoints of a run, ``folder/iter_XXXXXXX.pth``; only the newest ``keep`` are kept."""

    def __init__(self, folder: str | Path, *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"expected to keep at least one checkpoint, got keep={keep}")
        self.folder = Path(folder)
        self.keep = keep
        self.saved: int | None = None  # the last saved iteration

    def path(self, iteration: int) -> Path:
        """Return the path of the checkpoint after ``iteration`` finished iterations."""
        return self.folder / f"iter_{iteration:07d}.pth"

    def paths(self) -> list[Path]:
        """Return all checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)]
        return sorted(found, key=lambda p: int(_NAME.fullmatch(p.name)[1]))

    def save(
        self, *, model: nn.Module, iteration: int, training: Mapping[str, object] | None = None
    ) -> None:
        """Write the checkpoint after ``iteration`` finished iterations and delete the oldest.

        A second call for the same iteration does nothing.
        """
        if iteration == self.saved:
            return
        path = self.path(iteration)
        save_checkpoint(path, model=model, iteration=iteration, training=training)
        self.saved = iteration
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def latest(self, log=print) -> tuple[Path, dict] | None:
        """Return path and content of the newest readable checkpoint, or None if there is none.

        Damaged checkpoints are logged and skipped.

        Raises
        ------
        ValueError
            If there are checkpoints but none can be read.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return path, read_checkpoint(path)
            except ValueError as error:
                log(f"{error}; trying the one before")
        if paths:
            raise ValueError(
                f"none of the {len(paths)} checkpoints in {self.folder} can be read: remove them "
                "to begin anew, or put back a copy"
            )
        return None

    def set_aside_after(self, path: Path) -> None:
        """Rename the checkpoints newer than ``path``, which are damaged, to ``NAME.damaged``.

        They are then neither counted among the newest nor overwritten.
        """
        for newer in self.paths()[self.paths().index(path) + 1 :]:
            newer.rename(newer.with_name(f"{newer.name}.damaged"))
