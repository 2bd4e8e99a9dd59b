#!/usr/bin/env python
r"""Write the model of a run, with merged adapters, as a folder for ``recyclelora.Segmentor``.

    python tools/export_segmentor.py --config-file configs/streets_to_real.py \
        results/streets_to_real/recyclelora.pth segmentor

The folder contains ``config.json`` (plain data) and ``model.safetensors``. Open it with
``recyclelora.Segmentor.from_pretrained("segmentor")``, which does not need the config of the run.
The checkpoint is that of a run, or a file from ``tools/export_trained.py``. Give the overrides
``key=value`` of the run.

``--form adapters`` writes only the adapters and the head, a small folder. To open it, the adapted
weights are needed. They are downloaded if they have a known name.
"""

import argparse
import sys

try:
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
    from recyclelora.export.segmentor import FILE_DTYPES
    from recyclelora.export.trained_segmentor import export_trained_segmentor
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def main(arguments: list[str] | None = None) -> None:
    """Export the model; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument(
        "--form",
        choices=("merged", "adapters"),
        default="merged",
        help="merged weights, or adapters and head only (default: merged)",
    )
    parser.add_argument(
        "--dtype",
        choices=FILE_DTYPES,
        default="float32",
        help="dtype of the weights in the file (default: float32)",
    )
    parser.add_argument("--base", help="the adapted weights (default: those of the config)")
    parser.add_argument(
        "checkpoint", help="checkpoint of the run, or a file from export_trained.py"
    )
    parser.add_argument("output", type=path_argument, help="output folder")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the run")
    args = parser.parse_args(arguments)
    try:
        export_trained_segmentor(
            args.checkpoint,
            args.output,
            config_file=args.config_file,
            overrides=args.opts,
            form=args.form,
            dtype=args.dtype,
            base=args.base,
        )
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    size = sum(file.stat().st_size for file in args.output.iterdir() if file.is_file())
    print(f"wrote {args.output}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
