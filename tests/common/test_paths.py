"""Replacement of ``~`` and environment variables in paths, and the errors for unknown names."""

import argparse
import os
from pathlib import Path

import pytest

from recyclelora.common.command_line import path_argument
from recyclelora.common.paths import expand_path, is_expandable


@pytest.fixture(autouse=True)
def variables(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/users/me")
    monkeypatch.setenv("DISK", "/data")
    monkeypatch.setenv("SIGN", "$")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("~", "/users/me"),
        ("~/a b", "/users/me/a b"),
        (Path("~/a"), "/users/me/a"),
        ("$DISK/a", "/data/a"),
        ("${DISK}/a", "/data/a"),
        ("/x/${DISK}_$DISK", "/x//data_/data"),
        ("~/$DISK", "/users/me/data"),
        ("$SIGN", "$"),
        ("a/~", "a/~"),
        ("US$5", "US$5"),
        ("$", "$"),
        ("a", "a"),
    ],
)
def test_expand_path_replaces_home_and_variables(path, expected):
    assert expand_path(path) == Path(expected)


@pytest.mark.parametrize("path", ["$NOT_SET/a", "a/${NOT_SET}"])
def test_expand_path_unset_variable_raises_with_its_name(path):
    assert is_expandable(path)
    with pytest.raises(ValueError, match="variable NOT_SET, which is not set: set it"):
        expand_path(path)
    with pytest.raises(argparse.ArgumentTypeError, match="variable NOT_SET"):
        path_argument(path)


def test_expand_path_existing_path_keeps_its_dollar():
    os.mkdir("$NOT_SET")
    assert expand_path("$NOT_SET") == Path("$NOT_SET") and not is_expandable("$NOT_SET")


def test_expand_path_unknown_user_or_home_raises(monkeypatch):
    with pytest.raises(ValueError, match="home folder of 'no-such-user', an unknown user"):
        expand_path("~no-such-user/a")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no entry in passwd
    with pytest.raises(ValueError, match=r"the home folder is unknown: set .* HOME"):
        expand_path("~/a")
