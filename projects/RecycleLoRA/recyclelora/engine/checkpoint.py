"""Checkpoints: tensors and plain types, written whole or not at all, read with ``weights_only``."""

import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import nn

from recyclelora.whole_file import whole_file

from .trained import TRAINED

FORMAT = "recyclelora-checkpoint-1"
_NAME = re.compile(r"iter_(\d+)\.pth")


def save_checkpoint(
    path: str | Path,
    *,
    model: nn.Module,
    iteration: int,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write ``path`` atomically: to a temporary file beside it, synced, then renamed.

    Args:
        path: the file; its folder is made.
        model: its state dict is stored (adapters in their unmerged form).
        iteration: the number of finished iterations, which is the next one to run.
        optimizer: its state is stored, for resuming.
        scaler: the float16 loss scaler, for resuming.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "iteration": iteration, "model": model.state_dict()}
    if optimizer is not None:
        content["optimizer"] = optimizer.state_dict()
    if scaler is not None:
        content["scaler"] = scaler.state_dict()
    with whole_file(path, sync=True) as temporary:
        torch.save(content, temporary)


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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        EOFError,
        OSError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"cannot read the checkpoint {path}: it is damaged or not a PyTorch file of tensors"
        ) from error
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


def load_model(model: nn.Module, state: dict[str, torch.Tensor], *, source: str) -> None:
    """Load a model's state completely, or raise one sentence and leave the model as it was.

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
    model.load_state_dict(state)


class Checkpoints:
    """The checkpoints of a run, ``folder/iter_XXXXXXX.pth``, of which the newest ``keep`` stay."""

    def __init__(self, folder: str | Path, *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"expected to keep at least one checkpoint, got keep={keep}")
        self.folder = Path(folder)
        self.keep = keep

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)]
        return sorted(found, key=lambda p: int(_NAME.fullmatch(p.name)[1]))

    def save(self, *, model, optimizer, iteration: int, scaler=None) -> Path:
        """Write the checkpoint after ``iteration`` finished iterations, then drop the oldest."""
        path = self.folder / f"iter_{iteration:07d}.pth"
        save_checkpoint(path, model=model, optimizer=optimizer, iteration=iteration, scaler=scaler)
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def latest(self, log=print) -> tuple[Path, dict] | None:
        """The newest readable checkpoint, or None; a damaged one is named and passed over."""
        for path in reversed(self.paths()):
            try:
                return path, read_checkpoint(path)
            except ValueError as error:
                log(f"{error}; trying the one before")
        return None
