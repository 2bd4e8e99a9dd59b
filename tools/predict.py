#!/usr/bin/env python
r"""Segment photographs and videos: class colours, overlays, class ids and confidences.

    python tools/predict.py --segmentor segmentor --out predicted photo.jpg photos/ drive.mp4

``--segmentor`` is a folder written by ``tools/export_segmentor.py``. To use a run instead, give
``--config-file`` and ``--checkpoint``, with the overrides ``key=value`` of the run:

    python tools/predict.py --config-file configs/streets_to_real.py \
        --checkpoint trained.pth --out predicted 'photos/**/*.jpg'

For each photograph the tool writes ``OUT/NAME_color.png``, ``OUT/NAME_overlay.jpg`` and
``OUT/NAME_ids.png`` (train ids), at the size of the photograph. Subfolders are kept. For each video
it writes ``OUT/NAME_color.mp4``, ``OUT/NAME_overlay.mp4`` and ``OUT/NAME_ids/000000.png``, one
lossless picture per frame. ``--save`` selects other kinds and may be repeated. The tool skips
hidden files and folders, and the folder OUT.

To continue a stopped run, repeat the command. Complete files are not computed again. The tool skips
files that it cannot read, lists them at the end, and then exits with code 1.

For a test server, save a single kind, which is written as ``OUT/NAME.png``. If the protocol defines
an image size for each dataset, ``--benchmark acdc`` selects the size for ACDC:

    python tools/predict.py --config-file F --checkpoint C --out to_send --save label_ids \
        --benchmark acdc datasets/acdc/rgb_anon/fog/test
"""

import argparse
import sys
from pathlib import Path

try:
    from recyclelora import Segmentor
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.paths import expand_path
    from recyclelora.common.validation import format_error
    from recyclelora.evaluation.protocol import UNLISTED
    from recyclelora.export.inference import Inference
    from recyclelora.export.prediction import predict_files
    from recyclelora.export.prediction_folder import DEFAULT, KINDS
    from recyclelora.export.trained_segmentor import load_run
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segmentor", type=path_argument, help="folder from export_segmentor.py")
    parser.add_argument("--config-file", help="config of a run, instead of --segmentor")
    parser.add_argument("--checkpoint", help="checkpoint of the run")
    parser.add_argument("--out", type=path_argument, required=True, help="output folder")
    parser.add_argument(
        "--save",
        choices=KINDS,
        action="append",
        help=f"kind of output; may be repeated (default: {', '.join(DEFAULT)})",
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="dtype of the computation")
    parser.add_argument(
        "--batch-size", type=int, default=1, help="images of equal size per call of the model"
    )
    parser.add_argument("--long-side", type=int, help="resize images to this long side (pixels)")
    parser.add_argument(
        "--benchmark", default=UNLISTED, help="dataset whose image size the protocol uses"
    )
    parser.add_argument(
        "files", nargs="+", help="photographs, videos, folders, patterns, and overrides key=value"
    )
    args = parser.parse_args(arguments)
    run = args.config_file is not None and args.checkpoint is not None
    if (args.segmentor is None) != run or (args.config_file is None) != (args.checkpoint is None):
        parser.error("give either --segmentor, or --config-file and --checkpoint")
    return args


def load(args: argparse.Namespace, overrides: list[str]) -> Inference:
    """Open the segmentor, or the run."""
    options = {"device": args.device, "dtype": args.dtype}
    given = {name: value for name, value in options.items() if value is not None}
    if args.segmentor is not None:
        return Segmentor.from_pretrained(args.segmentor, **given).inference()
    return load_run(args.checkpoint, config_file=args.config_file, overrides=overrides, **given)


def main(arguments: list[str] | None = None) -> None:
    """Segment the files; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    args = parse(arguments)
    overrides = []
    if args.segmentor is None:
        overrides = [one for one in args.files if "=" in one and not Path(one).exists()]
    kinds = args.save or DEFAULT
    try:
        done = predict_files(
            lambda: load(args, overrides),
            [expand_path(one) for one in args.files if one not in overrides],
            output=args.out,
            kinds=kinds,
            benchmark=args.benchmark,
            batch_size=args.batch_size,
            long_side=args.long_side,
        )
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(f"wrote {done.photographs} x {len(set(kinds))} pictures to {args.out}", end="")
    print(f", and segmented {done.frames} frames of videos" if done.frames else "")
    if done.complete:
        print(f"{done.complete} images were complete already")
    if done.failures:
        these = "".join(f"\n  {failure}" for failure in done.failures)
        failed = f"{len(done.failures)} of {done.files} files"
        sys.exit(f"error: {failed} could not be segmented:{these}")


if __name__ == "__main__":
    run_command(main)
