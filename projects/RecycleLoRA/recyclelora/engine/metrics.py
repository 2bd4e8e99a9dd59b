"""The loss curve ``metrics.json``: one line per logged iteration, also after resuming."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from detectron2.utils.events import EventStorage, JSONWriter, get_event_storage

from recyclelora.common.atomic_write import atomic_write

WINDOW = 20  # number of iterations whose median is logged

History = Mapping[str, list[list[float]]]


class MetricsFile(JSONWriter):
    """Append the medians of recent scalars to a file, as one JSON object per line.

    Detectron2's ``JSONWriter`` appends to the existing content of the file. This class first
    removes an incomplete last line and the lines of iterations from ``start`` on, which will run
    again.

    Parameters
    ----------
    path : str or Path
        The file.
    start : int
        The first iteration of the run.
    """

    def __init__(self, path: str | Path, *, start: int):
        path = Path(path)
        if path.exists():
            lines = list(_lines_before(path, start))
            with atomic_write(path, sync=True) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        super().__init__(str(path), window_size=WINDOW)

    def write(self) -> None:
        """Write and flush the line of the current iteration, unless its batch was skipped."""
        storage = get_event_storage()
        if storage.latest().get("total_loss", (None, None))[1] == storage.iter:
            self._last_write = storage.iter - 1  # do not write a line for restored scalars
            super().write()


def recent_history(storage: EventStorage) -> History:
    """Return the recent (value, iteration) pairs of every scalar whose median is logged.

    Parameters
    ----------
    storage : EventStorage
        Detectron2's storage of scalars.

    Returns
    -------
    dict
        The pairs by name.
    """
    smoothed = storage.smoothing_hints()
    return {
        name: [list(pair) for pair in buffer.values()[-WINDOW:]]
        for name, buffer in storage.histories().items()
        if smoothed[name]
    }


def restore_history(storage: EventStorage, history: History) -> None:
    """Restore the pairs of :func:`recent_history` in another storage.

    Parameters
    ----------
    storage : EventStorage
        Detectron2's storage of scalars.
    history : dict
        The pairs by name.
    """
    now = storage.iter
    for name, pairs in history.items():
        for value, iteration in pairs:
            storage.iter = iteration
            storage.put_scalar(name, value)
    storage.iter = now


def _lines_before(path: Path, start: int) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["iteration"] < start:
                yield line
        except (ValueError, TypeError, KeyError):
            continue  # incomplete, because the process was killed while writing
