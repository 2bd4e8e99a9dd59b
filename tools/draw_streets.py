"""Draw procedural streets as a dataset: images and label maps of the 19 Cityscapes classes.

python tools/draw_streets.py datasets/streets/day --count 400
python tools/draw_streets.py datasets/streets/night --count 40 --domain night --seed 1
"""

import argparse
import sys

from drawn_streets import DOMAINS, write_streets
from recyclelora.common.validation import format_error


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "root", help="folder to write; an interrupted run is taken up where it stopped"
    )
    parser.add_argument("--count", type=int, required=True, help="how many pictures")
    parser.add_argument(
        "--domain",
        default="day",
        help=f"the look: {', '.join(DOMAINS)} (default: day); same seed, same labels",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="which streets; give held-out sets another one (default: 0)",
    )
    parser.add_argument("--height", type=int, default=512, help="pixels (default: 512)")
    parser.add_argument("--width", type=int, default=1024, help="pixels (default: 1024)")
    parser.add_argument(
        "--workers", type=int, default=None, help="processes (default: one for each core)"
    )
    parser.add_argument(
        "--image-format", default="jpg", help="jpg (quality 95) or png (default: jpg)"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Draw; a request that cannot be met ends in one sentence and exit code 2."""
    try:
        write_streets(**vars(parse()))
    except (ValueError, OSError) as error:
        print(f"draw_streets: {format_error(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
