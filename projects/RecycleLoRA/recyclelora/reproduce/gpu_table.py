"""The table of the run of ``benchmark/gpu.sh``, from the JSON files of its parts."""

from collections.abc import Callable, Mapping
from pathlib import Path

from .formatting import NOT_RUN, markdown_table, ran_on, read_json

HEADERS = ("part", "", "time", "peak memory")
Row = tuple[str, str, str, str]


def read_parts(folder: Path) -> dict[str, dict]:
    """Return the content of ``summary.json`` and of the file of each part that ended well.

    Parameters
    ----------
    folder : Path
        The folder of the results.

    Returns
    -------
    dict
        The contents by name; ``summary`` is the first.
    """
    summary = read_json(folder / "summary.json")
    found = {"summary": summary}
    for name, state in summary["parts"].items():
        file = folder / f"{name}.json"
        if state["status"] == "done" and file.is_file():
            found[name] = read_json(file)
    return found


def gpu_rows(parts: Mapping[str, Mapping]) -> list[Row]:
    """Return the rows of the table: one or several for each part.

    Parameters
    ----------
    parts : Mapping
        The result of :func:`read_parts`.

    Returns
    -------
    list of tuple
        The cells of the rows.
    """
    rows: list[Row] = []
    for name, state in parts["summary"]["parts"].items():
        seconds = f"{state['seconds']:.0f} s"
        if state["status"] != "done":
            rows.append((name, f"{state['status']}: {state['sentence']}".rstrip(": "), seconds, ""))
        elif name in parts:
            rows += [(name, *cells) for cells in _CELLS[name](parts[name])]
        elif "passed" in state:
            told = f"{state['passed']} tests passed, {state['skipped']} skipped"
            rows.append((name, told, seconds, ""))
        else:
            rows.append((name, "done", seconds, ""))
    return rows


def gpu_table(results: Path) -> str:
    """Return the table in Markdown, and the machine on which it was measured.

    Parameters
    ----------
    results : Path
        The folder of all results.

    Returns
    -------
    str
        Markdown.
    """
    folder = results / "benchmark" / "gpu"
    if not (folder / "summary.json").is_file():
        return NOT_RUN
    parts = read_parts(folder)
    return f"{markdown_table(gpu_rows(parts), HEADERS)}\n\n{ran_on(parts['summary'])}"


def _memory(run: Mapping) -> str:
    return f"{run['peak_bytes'] / 1e9:.2f} GB"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def _rrqr(run: Mapping) -> list[tuple[str, str, str]]:
    entries = {"all layers": run["model"]} | {part["batch"]: part for part in run["batches"]}
    return [
        (f"{name}, on {place}", _time(entry[key]["median"]), _memory(entry[key]))
        for name, entry in entries.items()
        for key, place in (("device", run["settings"]["device"]), ("cpu", "the CPU"))
    ]


def _adapter(run: Mapping) -> list[tuple[str, str, str]]:
    rows = []
    for part in run["runs"]:
        for name, system in part["block"].items():
            what = f"{part['precision']}, {part['rows']} tokens, {name} ({system['ratio']:.2f}x)"
            rows.append((what, _time(system["median"]), _memory(system)))
    return rows


def _step(run: Mapping) -> list[tuple[str, str, str]]:
    return [
        (
            f"{part['precision']}, {name} ({system['speedup']:.2f}x)",
            _time(system["median"]),
            _memory(system),
        )
        for part in run["runs"]
        for name, system in part["systems"].items()
    ]


def _evaluation(run: Mapping) -> list[tuple[str, str, str]]:
    return [
        (
            f"{part['precision']}, {part['images_per_second']:.1f} images a second",
            _time(part["seconds"]),
            _memory(part),
        )
        for part in run["runs"]
    ]


def _training(run: Mapping) -> list[tuple[str, str, str]]:
    return [
        (
            f"{part['precision']}, an iteration, {_time(part['waiting_seconds'])} of it waiting "
            "for data",
            _time(part["seconds"]),
            _memory(part),
        )
        for part in run["runs"]
    ]


def _input(run: Mapping) -> list[tuple[str, str, str]]:
    return [
        (
            f"{kind}, {name}: {found['samples_per_second']:.0f} samples a second and core",
            _time(found["median"]),
            _memory(found),
        )
        for kind, part in run["kinds"].items()
        for name, found in part["candidates"].items()
    ]


_CELLS: dict[str, Callable[[Mapping], list[tuple[str, str, str]]]] = {
    "rrqr": _rrqr,
    "adapter": _adapter,
    "step_bfloat16": _step,
    "step_float32": _step,
    "evaluation": _evaluation,
    "training": _training,
    "compiled": _training,
    "input": _input,
}
