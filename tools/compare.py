#!/usr/bin/env python
r"""Draw the predictions of several runs and the ground truth, on the images where they differ most.

    python tools/compare.py --config-file configs/streets_to_real.py --domain camvid_dusk \
        --out compare.png output/lora output/recyclelora

First evaluate each run with ``evaluation.save_predictions=train_ids``. ``--images`` selects images
by their names in ``images.json``.
"""

import argparse
import sys

try:
    from recyclelora.analysis.compare import compare_runs
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.paths import expand_path
    from recyclelora.common.validation import format_error
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="a config with the domain")
    parser.add_argument("--domain", required=True, help="key of dataloader.test")
    parser.add_argument("--out", type=path_argument, required=True, help="PNG file to write")
    parser.add_argument("--images", nargs="+", default=[], help="names of images")
    parser.add_argument("--count", type=int, default=6, help="number of images (default: 6)")
    parser.add_argument(
        "runs", nargs="+", help="output folders, and overrides key=value of the config"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Draw the images; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    args = parse(arguments)
    overrides = [word for word in args.runs if "=" in word]
    try:
        drawn = compare_runs(
            [expand_path(word) for word in args.runs if word not in overrides],
            config_file=args.config_file,
            overrides=overrides,
            domain=args.domain,
            output=args.out,
            images=args.images,
            count=args.count,
        )
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(f"wrote {args.out}: {', '.join(drawn)}")


if __name__ == "__main__":
    run_command(main)
