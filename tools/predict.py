#!/usr/bin/env python
"""Segment photographs: class colours, an overlay, and a map of class ids for each.

    python tools/predict.py --config-file configs/streets_to_real.py \
        --checkpoint trained.pth --out predicted photo.jpg more_photos/

Writes ``OUT/NAME_color.png``, ``OUT/NAME_overlay.jpg`` and ``OUT/NAME_ids.png`` (Cityscapes train
ids, 0 to 18). The checkpoint is one of a run, or a file of ``tools/export_trained.py``. Overrides
``key=value`` are those of the run.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from PIL import Image
from tqdm import tqdm

from lazyconfig_train_net import load_config
from recyclelora.bad_input import sentence_of
from recyclelora.data import read_image
from recyclelora.devices import pick_device
from recyclelora.engine import read_checkpoint
from recyclelora.engine.predictor import predictor
from recyclelora.engine.run import build_from
from recyclelora.engine.trainer import amp_dtype
from recyclelora.evaluation.pictures import colorize
from recyclelora.whole_file import whole_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def photographs(paths: list[Path]) -> list[Path]:
    """The files, and those of the folders among ``paths``, no two of one name."""
    found = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no photograph or folder at {path}: correct the path")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        files = [file for file in inside if file.suffix.lower() in SUFFIXES]
        if not files:
            raise ValueError(f"{path}: expected a picture ({', '.join(SUFFIXES)}), found none")
        found += files
    stems = [file.stem for file in found]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise ValueError(f"two photographs are called {twice}: run them into folders of their own")
    return found


def save(picture: np.ndarray, file: Path, **options: object) -> None:
    """Write a picture whole or not at all."""
    with whole_file(file) as temporary:
        suffix = {".jpg": "JPEG", ".png": "PNG"}[file.suffix]
        Image.fromarray(picture).save(temporary, suffix, **options)


def segment(files: list[Path], args: argparse.Namespace) -> None:
    """Build the model and segment every file."""
    cfg = load_config(args)
    device = pick_device(cfg.train.device)
    content = read_checkpoint(args.checkpoint)
    model = build_from(cfg, content, source=args.checkpoint, device=device)
    protocol = instantiate(cfg.evaluation.protocol)
    args.out.mkdir(parents=True, exist_ok=True)
    with predictor(model, dtype=amp_dtype(cfg.train.amp.dtype, device)) as predict:
        for file in tqdm(files, "segmenting", unit="photo"):
            pixels = read_image(file)
            sample = {
                "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
                "sem_seg": torch.zeros(pixels.shape[:2], dtype=torch.uint8),
                "file_name": str(file),
            }
            ids, _, _ = protocol.segment(predict, sample, benchmark="photographs")
            colors = colorize(ids)
            save(ids, args.out / f"{file.stem}_ids.png")
            save(colors, args.out / f"{file.stem}_color.png")
            blend = (pixels.astype(np.uint16) + colors) // 2
            save(blend.astype(np.uint8), args.out / f"{file.stem}_overlay.jpg", quality=90)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument("--checkpoint", required=True, help="what it trained")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("photos", nargs="+", help="pictures, folders, and overrides key=value")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Segment; bad input ends in one sentence and exit code 1."""
    args = parse(arguments)
    args.opts = [one for one in args.photos if "=" in one and not Path(one).exists()]
    try:
        files = photographs([Path(one) for one in args.photos if one not in args.opts])
        segment(files, args)
    except Exception as error:
        sys.exit(f"error: {sentence_of(error)}")
    print(f"wrote {len(files)} x 3 pictures to {args.out}")


if __name__ == "__main__":
    main()
