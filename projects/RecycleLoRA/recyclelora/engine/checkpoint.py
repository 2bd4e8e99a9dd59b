"""Checkpoints: tensors and plain types, written whole or not at all, read with ``weights_only``."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.tensor_file import read_tensor_file

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
    """Write ``path`` atomically: to a temporary file beside it, synced, then renamed.

    Args:
        path: the file; its folder is made.
        model: its state dict is stored (adapters in their unmerged form).
        iteration: the number of finished iterations, which is the next one to run.
        training: what resuming needs besides, tensors and plain types by name (see
            :meth:`Trainer.state_dict`).

    Raises:
        OSError: the disk is full, or refuses for another reason.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "iteration": iteration, "model": model.state_dict()}
    with atomic_write(path, sync=True) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content | dict(training or {}), file)
        except RuntimeError as error:
            # torch's writer covers what the disk said with a remark of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def read_checkpoint(path: str | Path) -> dict:
    """Read a file of :func:`save_checkpoint` or :func:`save_trained`, on the CPU.

    Nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is not one of our checkpoints.
    """
    path = Path(path)
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
    return content


def evaluated_weights(content: Mapping) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint that are evaluated: averages (``train.ema``) where it has them.

    They are a state dict of the model, to be loaded by :func:`load_model`.
    """
    return content["model"] | content.get("ema", {})


def load_model(
    model: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, assign: bool = False
) -> None:
    """Load a model's state completely, or raise one sentence and leave the model as it was.

    Args:
        model: takes the values.
        state: of :meth:`torch.nn.Module.state_dict`.
        source: where the state is from, for the sentence.
        assign: let the model hold the tensors of ``state`` themselves, as one on the meta device
            has to.

    Raises:
        ValueError: keys or shapes differ: it is a checkpoint of another model.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    shapes = [k for k in expected if k in state and expected[k].shape != state[k].shape]
    problems = []
    for label, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            problems.append(f"{label} {keys[0]}{more}")
    if shapes:
        key = shapes[0]
        problems.append(
            f"{key} is {tuple(state[key].shape)} there and {tuple(expected[key].shape)} here"
            + (f" ({len(shapes)} such)" if len(shapes) > 1 else "")
        )
    if problems:
        raise ValueError(
            f"{source} belongs to another model: {'; '.join(problems)}. Use the config (sizes, "
            "ranks, classes) that it was trained with"
        )
    model.load_state_dict(state, assign=assign)


class Checkpoints:
    """The checkpoints of a run, ``folder/iter_XXXXXXX.pth``, of which the newest ``keep`` stay."""

    def __init__(self, folder: str | Path, *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"expected to keep at least one checkpoint, got keep={keep}")
        self.folder = Path(folder)
        self.keep = keep
        self.saved: int | None = None  # the iteration saved last

    def path(self, iteration: int) -> Path:
        """Where the checkpoint after so many finished iterations is."""
        return self.folder / f"iter_{iteration:07d}.pth"

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)]
        return sorted(found, key=lambda p: int(_NAME.fullmatch(p.name)[1]))

    def save(
        self, *, model: nn.Module, iteration: int, training: Mapping[str, object] | None = None
    ) -> None:
        """Write the checkpoint after ``iteration`` finished iterations, then drop the oldest.

        Asked to save the same iteration twice in a row, it does so once.
        """
        if iteration == self.saved:
            return
        path = self.path(iteration)
        save_checkpoint(path, model=model, iteration=iteration, training=training)
        self.saved = iteration
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def latest(self, log=print) -> tuple[Path, dict] | None:
        """The newest readable checkpoint, or None; a damaged one is named and passed over.

        Raises:
            ValueError: there are checkpoints, but none that can be read.
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

        So that they neither count among the newest nor are in the way.
        """
        for newer in self.paths()[self.paths().index(path) + 1 :]:
            newer.rename(newer.with_name(f"{newer.name}.damaged"))
