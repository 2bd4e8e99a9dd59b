"""Validate input, and format error messages as one line."""

import reprlib

import torch

from .files import is_out_of_files, open_files_message

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def short_repr(value: object) -> str:
    """Return ``repr(value)``, abbreviated if it is long.

    Parameters
    ----------
    value : object
        Any value.

    Returns
    -------
    str
        The text.
    """
    return _SHORT.repr(value)


def check_integer(name: str, value: object, *, least: int = 0, most: int = 10**9) -> None:
    """Raise an error unless a value is an int in a range; bool is rejected.

    Parameters
    ----------
    name : str
        Name of the value in the message.
    value : object
        The value to check.
    least, most : int
        The range, including both ends.

    Raises
    ------
    ValueError
        If the value is not an int, or if it is out of range.

    Examples
    --------
    >>> check_integer("depth", 12, least=1)
    >>> check_integer("depth", "12", least=1, most=1000)
    Traceback (most recent call last):
    ValueError: depth must be a whole number from 1 to 1,000, got '12'
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(
            f"{name} must be a whole number from {least:,} to {most:,}, got {short_repr(value)}"
        )


def check_number(name: str, value: object, *, least: float = 0.0, most: float = 1e9) -> None:
    """Raise an error unless a value is an int or float in a range; bool and NaN are rejected.

    Parameters
    ----------
    name : str
        Name of the value in the message.
    value : object
        The value to check.
    least, most : float
        The range, including both ends.

    Raises
    ------
    ValueError
        If the value is not a number, or if it is out of range.

    Examples
    --------
    >>> check_number("dropout", 1.5, most=1.0)
    Traceback (most recent call last):
    ValueError: dropout must be a number from 0 to 1, got 1.5
    """
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not least <= value <= most:
        raise ValueError(
            f"{name} must be a number from {least:g} to {most:g}, got {short_repr(value)}"
        )


def format_error(error: BaseException) -> str:
    """Return the message that a command line prints for an error, as a single line.

    Parameters
    ----------
    error : BaseException
        The error. Messages of ValueError, FloatingPointError and most OSErrors are kept. Other
        types are reported as unexpected.

    Returns
    -------
    str
        One line of text that can be encoded.

    Examples
    --------
    >>> format_error(KeyError("road"))
    "unexpected KeyError: 'road'"
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        message = (
            f"this machine does not have enough memory ({_first_line(error)}): reduce the model, "
            "crop, batch or image sizes"
        )
    elif is_out_of_files(error):
        message = open_files_message()
    elif isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        where = " -> ".join(names) or "a file"
        message = f"cannot use {where} ({error.strerror}): correct this, or choose another path"
    elif isinstance(error, ValueError | OSError | FloatingPointError):
        message = str(error)
    else:
        message = f"unexpected {type(error).__name__}: {_first_line(error)}"
    # File names may contain line breaks and bytes that cannot be encoded.
    message = message.replace("\n", " ").replace("\r", " ")
    return message.encode(errors="backslashreplace").decode()


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
