#!/usr/bin/env python
"""Segment photographs: class colours, an overlay, and a map of class ids for each.

    python tools/predict.py --config-file configs/streets_to_real.py \
        --checkpoint trained.pth --out predicted photo.jpg more_photos/

Writes ``OUT/NAME_color.png``, ``OUT/NAME_overlay.jpg`` and ``OUT/NAME_ids.png`` (Cityscapes train
ids, 0 to 18), in the folders that a given folder has below it. The checkpoint is one of a run, or a
file of ``tools/export_trained.py``. Overrides ``key=value`` are those of the run. Hidden files and
folders are left out, and so is OUT. A photograph that cannot be read does not stop the others: all
such are listed at the end, and the exit code is 1.

For a test server, ``--save label_ids`` (or train_ids, color) writes ``OUT/NAME.png`` alone, and
``--benchmark acdc`` selects the image size, where the protocol has one for each set:

    python tools/predict.py --config-file F --checkpoint C --out to_send --save label_ids \
        --benchmark acdc datasets/acdc/rgb_anon/fog/test
"""

import argparse
import sys
from pathlib import Path

try:
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.paths import expand_path
    from recyclelora.common.validation import format_error
    from recyclelora.engine.predict import predict_photographs
    from recyclelora.evaluation.predictions import FORMATS
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument("--checkpoint", required=True, help="what it trained")
    parser.add_argument("--out", type=path_argument, required=True, help="folder to write")
    parser.add_argument("--save", choices=FORMATS, help="write class maps alone, in this form")
    parser.add_argument(
        "--benchmark", default="photographs", help="the set whose image size the protocol applies"
    )
    parser.add_argument("photos", nargs="+", help="pictures, folders, and overrides key=value")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Segment the photographs; invalid input ends in one sentence and exit code 1."""
    tolerate_any_text()
    args = parse(arguments)
    overrides = [one for one in args.photos if "=" in one and not Path(one).exists()]
    try:
        count, failures = predict_photographs(
            [expand_path(one) for one in args.photos if one not in overrides],
            config_file=args.config_file,
            overrides=overrides,
            checkpoint=args.checkpoint,
            output=args.out,
            form=args.save,
            benchmark=args.benchmark,
        )
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(f"wrote {count} x {3 if args.save is None else 1} pictures to {args.out}")
    if failures:
        total = count + len(failures)
        these = "".join(f"\n  {failure}" for failure in failures)
        sys.exit(f"error: {len(failures)} of {total} photographs could not be segmented:{these}")


if __name__ == "__main__":
    run_command(main)
