#!/usr/bin/env python
r"""Fit the temperature of a segmentor's confidences on validation sets.

    python tools/calibrate.py --segmentor segmentor --config-file configs/demo.py \
        --fit "streets day_val" --out calibration.json

The domains are the entries of ``dataloader.test`` in the config; change them with overrides
``key=value``. ``--fit`` may be repeated. The output file contains the temperature, and for each
domain the expected calibration error and the AUROC of errors before and after. Unless ``--keep`` is
given, the temperature is also stored in the segmentor, which uses it for its predictions.

To calibrate a run, give ``--checkpoint`` instead of ``--segmentor``. With
``evaluation.temperature=T``, evaluations of the run add both scores to ``domains.json``.
"""

import argparse
import sys

try:
    from recyclelora import Segmentor
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
    from recyclelora.export.calibrate import calibrate
    from recyclelora.export.inference import Inference
    from recyclelora.export.segmentor_folder import set_temperature
    from recyclelora.export.trained_segmentor import load_run
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--segmentor", type=path_argument, help="folder from export_segmentor.py")
    model.add_argument("--checkpoint", help="checkpoint of the run")
    parser.add_argument("--config-file", required=True, help="config with the domains")
    parser.add_argument(
        "--fit", action="append", required=True, help="a domain to fit the temperature to"
    )
    parser.add_argument("--out", type=path_argument, required=True, help="output file (JSON)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--keep", action="store_true", help="do not change the segmentor")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Calibrate; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    args = parse(arguments)

    def load() -> Inference:
        if args.segmentor is not None:
            return Segmentor.from_pretrained(args.segmentor, device=args.device).inference()
        return load_run(
            args.checkpoint,
            config_file=args.config_file,
            overrides=args.opts,
            device=args.device,
        )

    try:
        found = calibrate(
            load, args.out, config_file=args.config_file, overrides=args.opts, fit=args.fit
        )
        if args.segmentor is not None and not args.keep:
            set_temperature(args.segmentor, found["temperature"])
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(f"temperature {found['temperature']:.3f}; scores in {args.out}")


if __name__ == "__main__":
    run_command(main)
