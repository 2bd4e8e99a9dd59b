"""Resumable, checked and atomic download of a file."""

import contextlib
import errno
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

logger = logging.getLogger(__name__)

_TIMEOUT = 20.0  # seconds without a byte
_PAUSES = (0.0, 1.0, 3.0, 10.0)  # seconds before each further attempt after one without data
_CHUNK = 2**20


class OfflineError(ConnectionError):
    """The server cannot be reached or does not return the file."""


def download(url: str, path: Path, *, what: str, check: Callable[[Path], None]) -> None:
    """Download a file with a progress bar.

    The content is written to ``.NAME.part`` beside ``path`` until it is complete and checked. An
    interrupted download continues from this file, even in a later call, if the file on the server
    is unchanged.

    Parameters
    ----------
    url : str
        An HTTP address. If the server does not support ranges, the download starts again.
    path : Path
        The file to write, in an existing folder. Only one process at a time may call this.
    what : str
        Name of the file in messages.
    check : callable
        Raises ValueError if the complete file is not the expected one. The file is then removed.

    Raises
    ------
    OfflineError
        If repeated connections receive no data.
    ValueError
        From ``check``, or if the disk is too small.
    OSError
        If the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    tag = path.with_name(f".{path.name}.etag")
    without_progress, reason = 0, ""
    while without_progress <= len(_PAUSES):
        if without_progress:
            time.sleep(_PAUSES[without_progress - 1])
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(url, part, tag, what):
                break
            reason = "the connection was closed"
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise OfflineError(f"HTTP {error.code} {error.reason}") from error
            part.unlink(missing_ok=True)  # it is longer than the server's file
            reason = "the server refused to continue"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
            if before == 0 and not part.exists():
                raise OfflineError(reason) from error
        except ConnectionError as error:
            reason = error.strerror or type(error).__name__
        size = part.stat().st_size if part.exists() else 0
        without_progress = 0 if size > before else without_progress + 1
        logger.warning("the download of %s was cut off at %.1f MB (%s)", what, size / 1e6, reason)
    else:
        raise OfflineError(f"{reason}; run the command again to continue at {size / 1e6:.1f} MB")
    try:
        check(part)
    except ValueError as error:
        for file in (part, tag):
            file.unlink(missing_ok=True)
        raise ValueError(f"{error} (the download was removed)") from error
    os.replace(part, path)
    tag.unlink(missing_ok=True)


def _receive(url: str, part: Path, tag: Path, what: str) -> bool:
    """Append the data of one connection to ``part``; return whether the file is complete."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    start = part.stat().st_size if part.exists() and tag.exists() else 0
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", tag.read_text(encoding="latin-1"))
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        given = re.fullmatch(r"bytes (\d+)-\d+/\d+", response.headers.get("Content-Range", ""))
        if response.status != http.client.PARTIAL_CONTENT or not given or int(given[1]) != start:
            start = 0  # the whole file
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _remember(tag, response.headers.get("ETag") or response.headers.get("Last-Modified"))
        _require_space(part.parent, what, 0 if total is None else total - start)
        with (
            part.open("r+b" if start else "wb") as file,
            tqdm(total=total, initial=start, desc=what, unit="B", unit_scale=True) as bar,
        ):
            file.seek(start)
            while chunk := response.read(_CHUNK):
                _write(file, chunk, part)
                bar.update(len(chunk))
            return total is None or file.tell() == total


def _write(file: object, chunk: bytes, part: Path) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(part)) from error


def _remember(tag: Path, validator: str | None) -> None:
    """Store the validator of the server's file, unless it is a weak one."""
    if validator is None or validator.startswith("W/"):
        tag.unlink(missing_ok=True)
    else:
        tag.write_text(validator, encoding="latin-1")


def _require_space(folder: Path, what: str, needed: int) -> None:
    with contextlib.suppress(OSError):  # a file system that does not report its free space
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise ValueError(
                f"{what} needs {needed / 1e6:,.0f} MB in {folder}, which has {free / 1e6:,.0f} MB "
                f"free ({os.strerror(errno.ENOSPC)}): make room, or set RECYCLELORA_CACHE to "
                "another folder"
            )
