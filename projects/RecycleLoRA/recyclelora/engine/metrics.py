"""``metrics.json``, the loss curve: one line per logged iteration, also after resuming."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from detectron2.utils.events import EventStorage, JSONWriter, get_event_storage

from recyclelora.common.atomic_write import atomic_write

WINDOW = 20  # iterations whose median is logged

History = Mapping[str, list[list[float]]]


class MetricsFile(JSONWriter):
    """Append the medians of the last iterations' scalars to a file, one JSON object per line.

    Detectron2's ``JSONWriter`` appends to whatever is in the file. Here the lines of iterations
    from ``start`` on, which will be run again, and an incomplete last line are removed first.

    Parameters
    ----------
    path : str or Path
    start : int
        First iteration of the run.
    """

    def __init__(self, path: str | Path, *, start: int):
        path = Path(path)
        if path.exists():
            lines = list(_lines_before(path, start))
            with atomic_write(path, sync=True) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        super().__init__(str(path), window_size=WINDOW)

    def write(self) -> None:
        """Write the line of the current iteration and sync it, unless the batch was skipped."""
        storage = get_event_storage()
        if storage.latest().get("total_loss", (None, None))[1] == storage.iter:
            self._last_write = storage.iter - 1  # restored scalars have no lines of their own
            super().write()


def recent_history(storage: EventStorage) -> History:
    """Return the last (value, iteration) pairs of every scalar whose median is logged."""
    smoothed = storage.smoothing_hints()
    return {
        name: [list(pair) for pair in buffer.values()[-WINDOW:]]
        for name, buffer in storage.histories().items()
        if smoothed[name]
    }


def restore_history(storage: EventStorage, history: History) -> None:
    """Put the pairs of :func:`recent_history` into another storage."""
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
            continue  # incomplete: the process was killed while writing it
