"""Class maps of photographs: the work of ``tools/predict.py``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from recyclelora.common.devices import pick_device
from recyclelora.config.objects import instantiate
from recyclelora.data import read_image
from recyclelora.evaluation.predictions import save_map, save_pictures
from recyclelora.evaluation.protocol import nearest

from .build import build_from_checkpoint, load_config
from .checkpoint import read_checkpoint
from .predictor import predictor
from .trainer import amp_dtype

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


def predict_photographs(
    paths: Sequence[str | Path],
    *,
    config_file: str,
    overrides: Sequence[str],
    checkpoint: str,
    output: Path,
    form: str | None,
    benchmark: str,
) -> int:
    """Segment photographs and write their class maps.

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
    int
        The number of photographs.
    """
    files = find_photographs([Path(path) for path in paths])
    cfg = load_config(config_file, overrides)
    device = pick_device(cfg.train.device)
    content = read_checkpoint(checkpoint)
    model = build_from_checkpoint(cfg, content, source=checkpoint, device=device)
    protocol = instantiate(cfg.evaluation.protocol)
    with predictor(model, dtype=amp_dtype(cfg.train.amp.dtype, device)) as predict:
        for name, file in tqdm(files.items(), "segmenting", unit="photo"):
            pixels = read_image(file)
            sample = {
                "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
                "sem_seg": torch.zeros(pixels.shape[:2], dtype=torch.uint8),
                "file_name": str(file),
            }
            ids = nearest(protocol.segment(predict, sample, benchmark)[0], pixels.shape[:2])
            stem = output / name
            if form is None:
                save_pictures(stem, pixels, ids)
            else:
                save_map(stem.with_name(f"{stem.name}.png"), ids, form)
    return len(files)


def find_photographs(paths: Sequence[Path]) -> dict[Path, Path]:
    """Return the given files and those below the given folders, by name without suffix.

    Raises
    ------
    FileNotFoundError
        If there is nothing at a path.
    ValueError
        If a path holds no photograph, or two have the same name.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no photograph or folder at {path}: correct the path")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = [file for file in inside if file.suffix.lower() in SUFFIXES]
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
