"""Functions for all command lines: output to any terminal, paths as arguments, and Ctrl-C."""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

from .paths import expand_path

INTERRUPTED = "stopped by Ctrl-C"


def tolerate_any_text() -> None:
    """Let standard output and standard error accept text that their encoding lacks.

    Characters that cannot be encoded are printed as escapes (``\\xfc``) instead of raising
    UnicodeEncodeError. They occur in locales that are not UTF-8, and in file names that are not
    valid UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def path_argument(text: str) -> Path:
    """Convert an argument of a command line to a path; ``~`` and variables are expanded.

    Use it as ``type=`` of argparse.

    Parameters
    ----------
    text : str
        The argument.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    argparse.ArgumentTypeError
        If a variable is not set, or if a home folder is unknown.
    """
    try:
        return expand_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run_command(main: Callable[[], None]) -> None:
    """Call the main function of a tool. Ctrl-C ends the program with one line and exit code 130.

    Parameters
    ----------
    main : Callable[[], None]
        The function, called without arguments.
    """
    try:
        main()
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr, flush=True)
        sys.exit(130)
