#!/usr/bin/env python
"""Segment photographs: class colours, an overlay, and a map of class ids for each.

    python tools/predict.py --config-file configs/streets_to_real.py \
        --checkpoint trained.pth --out predicted photo.jpg more_photos/

Writes ``OUT/NAME_color.png``, ``OUT/NAME_overlay.jpg`` and ``OUT/NAME_ids.png`` (Cityscapes train
ids, 0 to 18), in the folders that a given folder has below it. The checkpoint is one of a run, or a
file of ``tools/export_trained.py``. Overrides ``key=value`` are those of the run.

For a test server, ``--save label_ids`` (or train_ids, color) writes ``OUT/NAME.png`` alone, and
``--benchmark acdc`` says which set it is, where the protocol has a size for each:

    python tools/predict.py --config-file F --checkpoint C --out to_send --save label_ids \
        --benchmark acdc datasets/acdc/rgb_anon/fog/test
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate
from PIL import Image
from tqdm import tqdm

from recyclelora.common.atomic_write import atomic_write
from recyclelora.common.devices import pick_device
from recyclelora.common.validation import format_error
from recyclelora.data import read_image
from recyclelora.engine import read_checkpoint
from recyclelora.engine.predictor import predictor
from recyclelora.engine.run import build_from
from recyclelora.engine.train import load_config
from recyclelora.engine.trainer import amp_dtype
from recyclelora.evaluation.predictions import FORMATS, encode, save_map
from recyclelora.evaluation.protocol import nearest

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


def photographs(paths: list[Path]) -> dict[Path, Path]:
    """The files, and those below the folders among ``paths``: name without suffix -> file."""
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


def segment(files: dict[Path, Path], args: argparse.Namespace) -> None:
    """Build the model and segment every file."""
    cfg = load_config(args)
    device = pick_device(cfg.train.device)
    content = read_checkpoint(args.checkpoint)
    model = build_from(cfg, content, source=args.checkpoint, device=device)
    protocol = instantiate(cfg.evaluation.protocol)
    with predictor(model, dtype=amp_dtype(cfg.train.amp.dtype, device)) as predict:
        for name, file in tqdm(files.items(), "segmenting", unit="photo"):
            pixels = read_image(file)
            sample = {
                "image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
                "sem_seg": torch.zeros(pixels.shape[:2], dtype=torch.uint8),
                "file_name": str(file),
            }
            ids, _, _ = protocol.segment(predict, sample, args.benchmark)
            write(args.out / name, pixels, nearest(ids, pixels.shape[:2]), args.save)


def write(stem: Path, pixels: np.ndarray, ids: np.ndarray, form: str | None) -> None:
    """The class map alone in the form of a test server, or else the three pictures."""
    if form is not None:
        save_map(stem.with_name(f"{stem.name}.png"), ids, form)
        return
    for kind, encoded in (("ids", "train_ids"), ("color", "color")):
        save_map(stem.with_name(f"{stem.name}_{kind}.png"), ids, encoded)
    blend = (pixels.astype(np.uint16) + encode(ids, "color")) // 2
    with atomic_write(stem.with_name(f"{stem.name}_overlay.jpg")) as temporary:
        Image.fromarray(blend.astype(np.uint8)).save(temporary, "JPEG", quality=90)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument("--checkpoint", required=True, help="what it trained")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--save", choices=FORMATS, help="write class maps alone, in this form")
    parser.add_argument(
        "--benchmark", default="photographs", help="the set that the protocol takes them for"
    )
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
        sys.exit(f"error: {format_error(error)}")
    print(f"wrote {len(files)} x {3 if args.save is None else 1} pictures to {args.out}")


if __name__ == "__main__":
    main()
