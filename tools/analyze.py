#!/usr/bin/env python
r"""Analyze trained adapters: tables, figures and one HTML report.

    python tools/analyze.py --config-file configs/streets_to_real.py \
        --weights results/streets_to_real/recyclelora.pth --images photos/ --out analysis

``--against`` adds another run to the comparison. Give its weights, its config if it differs from
--config-file, and its overrides:

    --against output/soma/iter_0000300.pth soma_dinov2l_g2cbm train.seed=1

The tool writes ``OUT/analysis.json``, ``OUT/figures/`` (PNG and SVG) and ``OUT/report.html``.
"""

import argparse
import sys

try:
    from recyclelora.analysis.analyze import Run, analyze_runs
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument("--weights", required=True, help="its checkpoint")
    parser.add_argument(
        "--against",
        nargs="+",
        action="append",
        default=[],
        metavar="WEIGHTS [CONFIG] [key=value]",
        help="another run to compare; can be given several times",
    )
    parser.add_argument("--images", type=path_argument, help="photographs for the feature changes")
    parser.add_argument("--block", type=int, help="block of the feature changes (default: last)")
    parser.add_argument("--out", type=path_argument, required=True, help="output folder")
    parser.add_argument("overrides", nargs="*", help="overrides key=value of the run")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Analyze the runs; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    args = parse(arguments)
    try:
        runs = [Run(args.weights, args.config_file, args.overrides)]
        runs += [Run.from_words(words, args.config_file) for words in args.against]
        report = analyze_runs(runs, output=args.out, images=args.images, block=args.block)
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(f"wrote {report}")


if __name__ == "__main__":
    run_command(main)
