#!/usr/bin/env python
"""Write a segmentor as an ONNX file, and compare it in onnxruntime on real images.

    python tools/export_onnx.py segmentor segmentor.onnx --check photos/

The segmentor is a folder written by ``tools/export_segmentor.py``. The input ``images`` is (batch,
3, height, width) float32, RGB 0..255, with any batch size and sides from 33 to 8192 pixels. The
outputs are ``scores`` (batch, classes, height, width) and ``classes`` (batch, height, width). The
metadata of the file contains the names and colours of the classes.

``--check`` accepts photographs, folders and patterns, and compares the first ten photographs of
each at the size at which the segmentor's protocol segments them. In float32, at least 99.9 % of the
pixels of each image must have the same class. In float16, at least 99 % must, and the median
difference of the scores must be at most 0.01. Otherwise the exit code is 1.

The export takes about a minute. To install the requirements, run ``pip install
'recyclelora[onnx]'``.
"""

import argparse
import sys

try:
    from recyclelora import Segmentor
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
    from recyclelora.export.onnx_file import (
        DTYPES,
        check_onnx,
        photographs_to_compare,
        save_onnx,
    )
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def main(arguments: list[str] | None = None) -> None:
    """Export; for invalid input, print one sentence and exit with code 1."""
    tolerate_any_text()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("segmentor", type=path_argument, help="folder from export_segmentor.py")
    parser.add_argument("output", type=path_argument, help="output file (.onnx)")
    parser.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help="dtype of the computation"
    )
    parser.add_argument(
        "--check",
        type=path_argument,
        action="append",
        default=[],
        help="photographs to compare; may be repeated",
    )
    args = parser.parse_args(arguments)
    try:
        photographs = photographs_to_compare(args.check)
        segmentor = Segmentor.from_pretrained(args.segmentor, device="cpu")
        save_onnx(segmentor, args.output, dtype=args.dtype)
        print(f"wrote {args.output}, {args.output.stat().st_size / 1e6:.1f} MB")
        for line in check_onnx(segmentor, args.output, photographs, dtype=args.dtype):
            print(line)
    except Exception as error:
        sys.exit(f"error: {format_error(error)}")


if __name__ == "__main__":
    run_command(main)
