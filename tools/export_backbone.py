#!/usr/bin/env python
r"""Write the backbone of a run, with merged adapters, for another library.

    python tools/export_backbone.py --config-file configs/streets_to_real.py \
        results/streets_to_real/recyclelora.pth backbone --layout hugging_face

Load the folder with ``transformers.AutoModel.from_pretrained("backbone")`` (``hugging_face``), with
``timm.create_model("local-dir:backbone", pretrained=True)`` (``timm``) or with the official code
(``dinov2``). If the library is installed, the tool loads the folder with it and prints the largest
difference of its output. Give the overrides ``key=value`` of the run.
"""

import argparse
import sys

try:
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
    from recyclelora.export.backbone import LAYOUTS
    from recyclelora.export.trained_backbone import export_trained_backbone
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def main(arguments: list[str] | None = None) -> None:
    """Export the backbone; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="the config of the run")
    parser.add_argument(
        "checkpoint", help="checkpoint of the run, or a file from export_trained.py"
    )
    parser.add_argument("output", type=path_argument, help="output folder")
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="layout of the library")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the run")
    args = parser.parse_args(arguments)
    try:
        differences = export_trained_backbone(
            args.checkpoint,
            args.output,
            config_file=args.config_file,
            overrides=args.opts,
            layout=args.layout,
        )
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")
    print(f"wrote {args.output}")
    if differences is None:
        print(f"{LAYOUTS[args.layout].library} is not installed: the output was not compared")
    for (height, width), largest, relative in differences or ():
        print(
            f"largest output difference at {height}x{width}: {largest:.1e}, relative {relative:.1e}"
        )


if __name__ == "__main__":
    run_command(main)
