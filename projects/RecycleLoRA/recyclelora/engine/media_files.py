"""Search for photographs and videos in files, folders and glob patterns."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from recyclelora.common.files import is_hidden, walk_files

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")


class Media(NamedTuple):
    """Files by name. The name is the path below the given folder, without the suffix."""

    photographs: dict[Path, Path]
    videos: dict[Path, Path]


def find_photographs(paths: Sequence[Path], *, output: Path | None = None) -> dict[Path, Path]:
    """Return the photographs at the given paths.

    Parameters
    ----------
    paths, output
        See :func:`find_media`.

    Returns
    -------
    dict
        The files by name.
    """
    return _find(paths, output, PHOTOGRAPHS).photographs


def find_media(paths: Sequence[Path], *, output: Path) -> Media:
    """Find photographs and videos at the given paths.

    A path is a file, a folder or a glob pattern. Hidden and system files and folders (``._a.jpg``,
    ``.ipynb_checkpoints``) are skipped in folders and patterns. A path that exists is not treated
    as a pattern.

    Parameters
    ----------
    paths : sequence of Path
        Files, folders, and patterns such as ``photos/**/*.jpg``. The name of a file that a pattern
        finds is its path below the part of the pattern without ``*``, ``?`` and ``[``.
    output : Path
        The output folder. It is not searched, because an earlier run may have written to it.

    Returns
    -------
    Media
        The photographs and videos by name.

    Raises
    ------
    FileNotFoundError
        If a path does not exist or a pattern matches nothing.
    ValueError
        If a path contains no photograph or video or lies in ``output``, or if two files of the same
        kind have the same name.
    """
    return _find(paths, output, PHOTOGRAPHS + VIDEOS)


def _find(paths: Sequence[Path], output: Path | None, suffixes: Sequence[str]) -> Media:
    """Return the files with one of the suffixes, by name."""
    found = Media({}, {})
    written = None if output is None else output.resolve()
    for path in paths:
        if written is not None and path.resolve().is_relative_to(written):
            raise ValueError(
                f"{path} is in the output folder {output}, which is not read: choose another "
                "folder with --out"
            )
        files = [(n, file) for n, file in _named(path) if file.suffix.lower() in suffixes]
        if written is not None:
            files = [x for x in files if not x[1].resolve().is_relative_to(written)]
        if not files:
            raise ValueError(f"{path}: expected a picture ({', '.join(suffixes)}), found none")
        for name, file in files:
            is_video = file.suffix.lower() in VIDEOS
            names, kind = (
                (found.videos, "videos") if is_video else (found.photographs, "photographs")
            )
            if names.setdefault(name, file) != file:
                raise ValueError(
                    f"two {kind} have the same name, {name}: write them to different folders"
                )
    return found


def _named(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield (name, file) for all files at a path."""
    if path.exists():
        yield from _below(path, path if path.is_dir() else path.parent)
        return
    fixed = [part for part in path.parts if not glob.has_magic(part)]
    if len(fixed) == len(path.parts):
        raise FileNotFoundError(f"no photograph or folder at {path}: correct the path")
    first = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    base = Path(*path.parts[:first])
    matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
    shown = [m for m in matches if not any(map(is_hidden, m.relative_to(base).parts))]
    if not shown:
        raise FileNotFoundError(f"no file matches {path}: correct the pattern")
    seen = set()
    for match in shown:
        for pair in _below(match, base):
            if pair not in seen:  # "**" matches a folder and also the files in it
                seen.add(pair)
                yield pair


def _below(path: Path, base: Path) -> Iterator[tuple[Path, Path]]:
    for file in walk_files(path) if path.is_dir() else [path]:
        yield file.relative_to(base).with_suffix(""), file
