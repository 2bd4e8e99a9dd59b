"""``metrics.json``, the loss curve: one line per logged iteration, however often a run stopped."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

from recyclelora.common.atomic_write import atomic_write

WINDOW = 20  # iterations whose median is logged

History = Mapping[str, list[list[float]]]


class MetricsFile(EventWriter):
    """Appends the medians of the last iterations' scalars, a JSON object a line.

    Args:
        path: the file; lines of iterations from ``start`` on, which will be run again, and a last
            line that was cut off are removed.
        start: the iteration that the run begins with.
    """

    def __init__(self, path: str | Path, *, start: int):
        path = Path(path)
        if path.exists():
            kept = [line + "\n" for line in _lines_before(path, start)]
            with atomic_write(path, sync=True) as temporary:
                temporary.write_text("".join(kept))
        self.file = path.open("a")

    def write(self) -> None:
        """Write the line of the current iteration, on the disk when this returns."""
        storage = get_event_storage()
        scalars = storage.latest_with_smoothing_hint(WINDOW).items()
        values = {name: value for name, (value, put) in scalars if put == storage.iter}
        if "total_loss" not in values:
            return  # a batch that was left out
        values["iteration"] = storage.iter
        self.file.write(json.dumps(values, sort_keys=True, allow_nan=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def recent_history(storage: EventStorage) -> History:
    """What the next medians will need: the last (value, iteration) pairs of every scalar."""
    smoothed = storage.smoothing_hints()
    return {
        name: [list(pair) for pair in buffer.values()[-WINDOW:]]
        for name, buffer in storage.histories().items()
        if smoothed[name]
    }


def restore_history(storage: EventStorage, history: History) -> None:
    """Put back what :func:`recent_history` gave."""
    now = storage.iter
    for name, pairs in history.items():
        for value, iteration in pairs:
            storage.iter = iteration
            storage.put_scalar(name, value)
    storage.iter = now


def _lines_before(path: Path, start: int) -> Iterator[str]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            iteration = json.loads(line)["iteration"]
        except (ValueError, TypeError, KeyError):
            continue  # cut off while it was written
        if iteration < start:
            yield line
