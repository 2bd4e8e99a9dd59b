#!/usr/bin/env python
"""Measure and show the drawn streets, for their card projects/DrawnStreets/README.md.

    python tools/card_streets.py --count 300
    python tools/update_readme.py     writes the card's tables from results/streets.json

The tool draws daytime streets on all cores, counts their classes, times every domain, and writes
results/streets.json and docs/streets.jpg. It does not keep the streets.
"""

import argparse
import os
import sys
from pathlib import Path

try:
    import torch

    from drawn_streets.card import write_card
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.reproduce.environment import environment
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Parse the command line and write the card."""
    tolerate_any_text()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300, help="number of streets (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the streets (default: 0)")
    add, path = parser.add_argument, path_argument
    add("--workers", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    add("--output", type=path, default=ROOT / "results" / "streets.json", help="JSON file to write")
    add("--picture", type=path, default=ROOT / "docs" / "streets.jpg", help="picture to write")
    args = parser.parse_args()
    if min(args.count, args.workers) < 1 or args.seed < 0:
        parser.error("--count and --workers must be at least 1, and --seed not negative")
    write_card(
        args.output,
        args.picture,
        count=args.count,
        seed=args.seed,
        workers=args.workers,
        environment=environment(torch.device("cpu"), ROOT),
    )


if __name__ == "__main__":
    run_command(main)
