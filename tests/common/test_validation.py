"""Checks of numbers, and error messages of one line."""

import math

import pytest

from recyclelora.common.validation import check_integer, check_number, format_error, short_repr


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, 11])
def test_check_integer_invalid_value_raises(value):
    check_integer("depth", 1, least=1, most=10)
    with pytest.raises(ValueError, match="depth must be a whole number from 1 to 10, got"):
        check_integer("depth", value, least=1, most=10)


@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, -0.1, 1.1])
def test_check_number_invalid_value_raises(value):
    check_number("rate", 1, most=1.0)
    with pytest.raises(ValueError, match="rate must be a number from 0 to 1, got"):
        check_number("rate", value, most=1.0)


def test_short_repr_of_long_text_is_abbreviated():
    assert len(short_repr("x" * 1000)) <= 80


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("rate: too\nhigh\r"), "rate: too high "),
        (KeyError("road"), "unexpected KeyError: 'road'"),
        (RuntimeError(), "unexpected RuntimeError: RuntimeError"),
        (MemoryError("1 GB"), "this machine does not have enough memory (1 GB): reduce"),
        (
            RuntimeError("you tried to allocate memory"),
            "this machine does not have enough memory",
        ),
        (
            PermissionError(13, "denied", "a.pth"),
            "cannot use a.pth (denied): correct this, or",
        ),
        (OSError(18, "link", "a", None, "b"), "cannot use a -> b (link): correct this, or"),
        (ValueError("\udcff.png"), "\\udcff.png"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_format_error_returns_one_line(error, text):
    line = format_error(error)
    assert line.startswith(text)
    assert len(line.splitlines()) == 1 and line.encode()
