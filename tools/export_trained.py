#!/usr/bin/env python
r"""Write the trained parameters of a run to one small file, without the base weights.

    python tools/export_trained.py --config-file configs/streets_to_real.py \
        output/streets_to_real/recyclelora_seed0/iter_0000300.pth trained.pth --half

Use the file like a checkpoint, as ``evaluation.checkpoint=trained.pth`` with --eval-only or as
``train.init_checkpoint=trained.pth``. The config loads the base weights, as in a training. Give the
overrides ``key=value`` of the run.
"""

import argparse
import sys

try:
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
    from recyclelora.engine.export import export_trained
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def main(arguments: list[str] | None = None) -> None:
    """Export the parameters; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument("checkpoint", help="iter_XXXXXXX.pth of the run")
    parser.add_argument("output", type=path_argument, help="file to write")
    parser.add_argument("--half", action="store_true", help="store the parameters in float16")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the run")
    args = parser.parse_args(arguments)
    try:
        export_trained(
            args.checkpoint,
            args.output,
            config_file=args.config_file,
            overrides=args.opts,
            half=args.half,
        )
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(f"wrote {args.output}, {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
