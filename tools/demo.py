#!/usr/bin/env python
"""The whole path on drawn streets: what a user would type, one command after the other.

    python tools/demo.py      (or: make demo)

Fetches a small DINOv2, draws streets, trains RecycleLoRA on those by day and evaluates on held-out
days, on night, fog and rain, and on the real sets below RECYCLELORA_DATA where it is set. Ends with
a table and ``output/demo/run/domains.png``. Run again, it goes on where it stopped.
"""

import argparse
import sys

try:
    from recyclelora.common.command_line import run_command, tolerate_any_text
    from recyclelora.common.validation import format_error
    from recyclelora.reproduce.checkout import find_checkout
    from recyclelora.reproduce.demo import run_demo
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def main() -> None:
    """Run the demo; an error ends it in one sentence and exit code 1."""
    tolerate_any_text()
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()  # it takes none
    try:
        run_demo(find_checkout())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {format_error(error)}")


if __name__ == "__main__":
    run_command(main)
