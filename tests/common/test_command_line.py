"""Command lines on terminals with limited encodings, and for users without a name."""

import getpass
import io
import os
import pwd
import sys

import pytest

from recyclelora.common.command_line import tolerate_any_text
from recyclelora.common.user import ensure_user_name


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_terminal_of_any_encoding_prints_any_text(monkeypatch, encoding):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    tolerate_any_text()
    for stream in streams:
        print("夜 ü \udcff", file=stream, flush=True)
        assert b"\\udcff" in stream.buffer.getvalue()


def test_terminal_that_is_closed_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    tolerate_any_text()


def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_user_without_a_name_gets_one(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    before = getpass.getuser()
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("LOGNAME", "")  # so that monkeypatch restores it
    ensure_user_name()
    assert getpass.getuser() == f"uid{os.getuid()}" != before


def test_user_with_a_name_keeps_it(monkeypatch):
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("LOGNAME", "me")
    ensure_user_name()
    assert os.environ["LOGNAME"] == "me"
