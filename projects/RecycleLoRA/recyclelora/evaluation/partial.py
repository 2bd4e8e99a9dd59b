"""Storage of the finished targets of an evaluation, so that it can be resumed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recyclelora.common.atomic_write import atomic_write, write_json
from recyclelora.common.validation import short_repr

from .pictures import Row

RESULTS = "domains.partial.json"
ROWS = "domains.partial.npz"
_ABSENT = "nothing"


class OtherEvaluationError(ValueError):
    """The finished targets in a folder belong to another evaluation and cannot be resumed."""


class Target(NamedTuple):
    """The result of one target domain.

    Attributes
    ----------
    scores : dict
        The entry of the domain in ``domains.json``.
    one_class : float
        The entry of the domain in ``one_class.json``.
    images : dict
        The entry of the domain in ``images.json``.
    confusion : list of list of int
        The entry of the domain in ``confusion.json``.
    rows : list of Row
        In the main process, the row of ``domains.png``, if there is one, followed by the rows of
        ``best_and_worst.png``.
    """

    scores: dict[str, Any]
    one_class: float
    images: dict[str, float | None]
    confusion: list[list[int]]
    rows: list[Row]


def save_partial(
    folder: Path, targets: Mapping[str, Target], settings: Mapping, of_targets: Mapping
) -> Path:
    """Write the finished targets, each file atomically.

    Parameters
    ----------
    folder : Path
        The output folder.
    targets : Mapping[str, Target]
        The finished targets by name.
    settings, of_targets : Mapping
        Plain values that determine the scores: those common to all targets, and those of each
        target by name.

    Returns
    -------
    Path
        The JSON file.
    """
    content = {
        "settings": settings,
        "of_targets": {name: of_targets.get(name, {}) for name in targets},
        "domains": {name: target.scores for name, target in targets.items()},
        "one_class": {name: target.one_class for name, target in targets.items()},
        "images": {name: target.images for name, target in targets.items()},
        "confusion": {name: target.confusion for name, target in targets.items()},
    }
    arrays = {
        f"{number}.{index}.{field}": value
        for number, target in enumerate(targets.values())
        for index, row in enumerate(target.rows)
        for field, value in zip(Row.__dataclass_fields__, _values(row), strict=True)
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / ROWS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    write_json(folder / RESULTS, content)
    return folder / RESULTS


def load_partial(
    folder: Path, images: Mapping[str, Sequence[str]], settings: Mapping, of_targets: Mapping
) -> dict[str, Target]:
    """Read the finished targets of an interrupted evaluation.

    Parameters
    ----------
    folder : Path
        The output folder.
    images : Mapping[str, Sequence[str]]
        The ids of all images of each target to evaluate. Other targets are left out.
    settings, of_targets : Mapping
        The values of :func:`save_partial`, for the evaluation that resumes.

    Returns
    -------
    dict
        The finished targets by name; empty if there are none.

    Raises
    ------
    OtherEvaluationError
        If a setting or the images of a finished target differ, or a file cannot be read.
    """
    file = folder / RESULTS
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        rows = _read_rows(folder / ROWS)
        results = {
            name: Target(
                scores,
                found["one_class"][name],
                found["images"][name],
                found["confusion"][name],
                rows.get(number, []),
            )
            for number, (name, scores) in enumerate(found["domains"].items())
        }
        before = {"": found["settings"], **found["of_targets"]}
    except Exception as error:  # NumPy, zipfile and damaged content raise errors of many types
        raise OtherEvaluationError(
            f"{file} cannot be read ({type(error).__name__}): remove it, or evaluate without "
            "--resume"
        ) from error
    results = {name: target for name, target in results.items() if name in images}
    now = {"": settings, **of_targets}
    for name in ("", *results):
        if difference := _difference(before.get(name, {}), now.get(name, {})):
            of = f" of {name}" if name else ""
            raise OtherEvaluationError(
                f"{file} holds the scores of another evaluation{of} ({difference}): evaluate "
                "without --resume to start again"
            )
    for name, target in results.items():
        if list(target.images) != list(images[name]):
            raise OtherEvaluationError(
                f"the images of {name} are not those of {file} ({len(images[name])} now, "
                f"{len(target.images)} then): evaluate without --resume to start again"
            )
    return results


def remove_partial(folder: Path) -> None:
    """Remove the files of :func:`save_partial` if they exist.

    Parameters
    ----------
    folder : Path
        The output folder.
    """
    for name in (RESULTS, ROWS):
        (folder / name).unlink(missing_ok=True)


def _values(row: Row) -> Iterator[np.ndarray]:
    return (np.asarray(getattr(row, field)) for field in Row.__dataclass_fields__)


def _read_rows(file: Path) -> dict[int, list[Row]]:
    """Return the rows by number of target; NumPy refuses npz files with Python objects."""
    rows: dict[int, dict[int, dict[str, Any]]] = {}
    with np.load(file, allow_pickle=False) as arrays:
        for key in arrays.files:
            number, index, field = key.split(".")
            value = arrays[key]
            fields = rows.setdefault(int(number), {}).setdefault(int(index), {})
            fields[field] = value if value.ndim else str(value)
    return {n: [Row(**parts[i]) for i in sorted(parts)] for n, parts in rows.items()}


def _difference(before: Mapping, now: Mapping) -> str | None:
    """Return a description of the first setting that differs, with both values, or None."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    for key in sorted({*old, *new}, key=lambda key: (key.count("."), key)):
        values = [short_repr(side[key]) if key in side else _ABSENT for side in (new, old)]
        if values[0] != values[1]:
            return f"{key}={values[1]}, now {values[0]}"
    return None


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, list(node) if isinstance(node, tuple) else node
