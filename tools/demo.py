#!/usr/bin/env python
"""Train and evaluate RecycleLoRA on drawn streets, from weights to scores.

    python tools/demo.py      (or: make demo)

The demo downloads a small DINOv2, draws streets, and trains RecycleLoRA on daytime streets. It
evaluates on held-out daytime streets, on night, fog and rain, and, if RECYCLELORA_DATA is set, on
the real images there. The results are a table and ``output/demo/run/domains.png``. After an
interruption, run the same command again to continue.
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
    """Run the demo; for an error, print one sentence and exit with code 1."""
    tolerate_any_text()
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()  # only --help
    try:
        run_demo(find_checkout())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {format_error(error)}")


if __name__ == "__main__":
    run_command(main)
