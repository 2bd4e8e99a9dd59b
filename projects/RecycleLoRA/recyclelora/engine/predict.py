"""Class maps of photographs: the work of ``tools/predict.py``."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from recyclelora.common.devices import pick_device
from recyclelora.common.files import walk_files
from recyclelora.common.validation import format_error
from recyclelora.config.objects import instantiate
from recyclelora.data import read_image
from recyclelora.evaluation.predictions import save_map, save_pictures
from recyclelora.evaluation.protocol import Protocol, nearest
from recyclelora.evaluation.sliding_window import Predict

from .build import build_from_checkpoint, load_config
from .checkpoint import read_checkpoint
from .predictor import predictor
from .trainer import amp_dtype

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


class Segmented(NamedTuple):
    """How many photographs were segmented, and a message for each that could not be."""

    count: int
    failures: list[str]


def predict_photographs(
    paths: Sequence[str | Path],
    *,
    config_file: str,
    overrides: Sequence[str],
    checkpoint: str,
    output: Path,
    form: str | None,
    benchmark: str,
) -> Segmented:
    """Segment photographs and write their class maps; continue after those that cannot be read.

    Parameters
    ----------
    paths : sequence of str or Path
        Files and folders.
    config_file, overrides : str, sequence of str
        Of the run that trained the model.
    checkpoint : str
        A file of :func:`save_checkpoint` or :func:`save_trained`.
    output : Path
        The folder to write.
    form : str, optional
        One of :data:`recyclelora.evaluation.predictions.FORMATS`: write the class map alone, as
        ``NAME.png``. None writes ``NAME_color.png``, ``NAME_overlay.jpg`` and ``NAME_ids.png``.
    benchmark : str
        The set whose image size the protocol applies.

    Returns
    -------
    Segmented

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no photograph or no model; see :func:`find_photographs`.
    OSError
        If the output cannot be written.
    """
    files = find_photographs([Path(path) for path in paths], output=output)
    cfg = load_config(config_file, overrides)
    device = pick_device(cfg.train.device)
    content = read_checkpoint(checkpoint)
    model = build_from_checkpoint(cfg, content, source=checkpoint, device=device)
    protocol = instantiate(cfg.evaluation.protocol)
    output.mkdir(parents=True, exist_ok=True)
    failures = []
    with predictor(model, dtype=amp_dtype(cfg.train.amp.dtype, device)) as predict:
        for name, file in tqdm(files.items(), "segmenting", unit="photo"):
            try:
                pixels, ids = _segment(file, predict, protocol, benchmark)
            except (OSError, ValueError, MemoryError, torch.OutOfMemoryError) as error:
                message = format_error(error)
                failures.append(message if str(file) in message else f"{file}: {message}")
                continue
            stem = output / name
            if form is None:
                save_pictures(stem, pixels, ids)
            else:
                save_map(stem.with_name(f"{stem.name}.png"), ids, form)
    return Segmented(len(files) - len(failures), failures)


def _segment(
    file: Path, predict: Predict, protocol: Protocol, benchmark: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels (H, W, 3) of a photograph and its class map (H, W)."""
    pixels = read_image(file)
    sample = {
        "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        "sem_seg": torch.zeros(pixels.shape[:2], dtype=torch.uint8),
        "file_name": str(file),
    }
    return pixels, nearest(protocol.segment(predict, sample, benchmark)[0], pixels.shape[:2])


def find_photographs(paths: Sequence[Path], *, output: Path | None = None) -> dict[Path, Path]:
    """Return the given files and those below the given folders, by name without suffix.

    Hidden and system files and folders (``._a.jpg``, ``.ipynb_checkpoints``) are left out of the
    given folders.

    Parameters
    ----------
    paths : sequence of Path
        Files and folders.
    output : Path, optional
        The folder to write, which is not searched: an earlier run may have written to it.

    Raises
    ------
    FileNotFoundError
        If there is nothing at a path.
    ValueError
        If a path holds no photograph or lies in ``output``, or two photographs have the same name.
    """
    found: dict[Path, Path] = {}
    written = None if output is None else output.resolve()
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no photograph or folder at {path}: correct the path")
        if written is not None and path.resolve().is_relative_to(written):
            raise ValueError(
                f"{path} lies in {output}, the folder to write, which is never read: choose "
                "another folder by --out"
            )
        inside = walk_files(path) if path.is_dir() else [path]
        files = [file for file in inside if file.suffix.lower() in SUFFIXES]
        if written is not None:
            files = [file for file in files if not file.resolve().is_relative_to(written)]
        if not files:
            raise ValueError(f"{path}: expected a picture ({', '.join(SUFFIXES)}), found none")
        for file in files:
            name = (file.relative_to(path) if path.is_dir() else Path(file.name)).with_suffix("")
            if name in found:
                raise ValueError(
                    f"two photographs are called {name}: run them into folders of their own"
                )
            found[name] = file
    return found
