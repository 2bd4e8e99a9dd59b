#!/usr/bin/env python
"""Update the tables of README.md, docs/ and projects/DrawnStreets/README.md from results/*.json.

python tools/update_readme.py           rewrite the tables
python tools/update_readme.py --check   exit with code 1 if a table differs from the JSON
"""

import argparse
import sys

try:
    from recyclelora.common.command_line import path_argument, run_command, tolerate_any_text
    from recyclelora.reproduce.checkout import find_checkout
    from recyclelora.reproduce.readme import update_pages
except KeyboardInterrupt:  # these imports take seconds
    print("stopped by Ctrl-C", file=sys.stderr)
    sys.exit(130)


def main() -> None:
    """Rewrite or check the pages."""
    tolerate_any_text()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="compare the tables without writing them"
    )
    parser.add_argument(
        "--root", type=path_argument, help="checkout (default: from the working directory)"
    )
    args = parser.parse_args()
    try:
        update_pages(args.root or find_checkout(), check=args.check)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_command(main)
