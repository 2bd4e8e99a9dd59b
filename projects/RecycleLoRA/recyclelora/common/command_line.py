"""What every command line needs: output to any terminal, paths as arguments, and Ctrl-C."""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

from .paths import expand_path

INTERRUPTED = "stopped by Ctrl-C"


def tolerate_any_text() -> None:
    """Let standard output and standard error print text that their encoding lacks.

    Such characters are printed as escapes (``\\xfc``) instead of raising UnicodeEncodeError: in a
    locale that is not UTF-8, and for file names that are not valid UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def path_argument(text: str) -> Path:
    """Return an argument of a command line as a path; ``~`` and variables are expanded.

    For ``type=`` of argparse.
    """
    try:
        return expand_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run_command(main: Callable[[], None]) -> None:
    """Call ``main()``. Ctrl-C ends the program with one line and exit code 130."""
    try:
        main()
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.exit(130)
