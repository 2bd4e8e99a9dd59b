"""The command line of ``python -m drawn_streets``."""

import argparse
import io
import os
import sys
from collections.abc import Callable

from .dataset import write_streets
from .domains import DOMAINS


def parse_arguments(
    arguments: list[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """Parse the arguments of :func:`write_streets`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=_path, help="folder to write; an interrupted run resumes")
    parser.add_argument("--count", type=int, required=True, help="number of images")
    parser.add_argument(
        "--domain",
        default="day",
        help=f"appearance: {', '.join(DOMAINS)} (default: day); labels depend on the seed only",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the streets; use another one for held-out sets (default: 0)",
    )
    parser.add_argument("--height", type=int, default=512, help="pixels (default: 512)")
    parser.add_argument("--width", type=int, default=1024, help="pixels (default: 1024)")
    parser.add_argument(
        "--workers", type=int, default=None, help="processes (default: one per core)"
    )
    parser.add_argument(
        "--image-format", default="jpg", help="jpg (quality 95) or png (default: jpg)"
    )
    return parser.parse_args(arguments)


def _path(text: str) -> str:
    """Replace ``~`` and environment variables."""
    return os.path.expanduser(os.path.expandvars(text))


def main(
    arguments: list[str] | None = None,
    *,
    description: str | None = None,
    format_error: Callable[[BaseException], str] = str,
) -> int:
    """Write streets; an invalid request prints one line and returns exit code 2.

    Parameters
    ----------
    arguments : list of str, optional
        Command-line arguments without the program; ``sys.argv[1:]`` by default.
    description : str, optional
        First paragraphs of ``--help``.
    format_error : callable
        Converts an exception to the line that is printed.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8 prints escapes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        write_streets(**vars(parse_arguments(arguments, description)))
    except (ValueError, OSError) as error:
        print(f"draw_streets: {format_error(error)}", file=sys.stderr)
        return 2
    return 0
