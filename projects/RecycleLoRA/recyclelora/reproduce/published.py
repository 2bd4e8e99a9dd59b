"""The paper's tables as they are printed, and which config of ours runs which of their rows.

The numbers stand in ``published.json``, one row a line, with their source.
"""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
SMALL = {"streets_to_real", "camvid_to_real"}  # on pictures that anyone can have: other tables
TARGETS = {"cityscapes": "→Citys.", "bdd100k": "→BDD", "mapillary": "→Map."}
TARGETS |= {f"acdc_{one}": f"→{one.title()}" for one in ("fog", "night", "rain", "snow")}


@dataclass(frozen=True)
class PrintedRow:
    """One row of a table.

    Args:
        row: as counted in print, from 1.
        cells: what stands before the numbers, by the column's head.
        mIoU: target -> percent, as printed; empty where the paper has no such row.
        average: as printed.
        config: the name of ours that runs it; None for a row that we can only quote.
        note: what a reader of the number should know.
    """

    row: int
    cells: Mapping[str, str]
    mIoU: Mapping[str, float] = field(default_factory=dict)
    average: float | None = None
    config: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, or of ours in the same form.

    Args:
        targets: names as in the configs' ``dataloader.test``, in the order of the columns.
    """

    title: str
    targets: tuple[str, ...]
    rows: tuple[PrintedRow, ...]


def _beyond(printed: set[str | None]) -> PaperTable:
    """The configs that the paper prints no row of, with the first line of their docstrings."""
    files = [file for file in sorted(CONFIGS.glob("*_*_*.py")) if file.stem not in printed | SMALL]
    labels = [ast.get_docstring(ast.parse(file.read_text())).partition("\n")[0] for file in files]
    rows = [
        PrintedRow(row=number, cells={"what": label}, config=file.stem)
        for number, (file, label) in enumerate(zip(files, labels, strict=True), 1)
    ]
    return PaperTable("Beyond the paper", tuple(TARGETS), tuple(rows))


_CONTENT = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
SOURCE: str = _CONTENT["source"]
PAPER_TABLES: dict[str, PaperTable] = {
    name: PaperTable(
        title=f"Table {name}: {table['title']}",
        targets=tuple(table["targets"]),
        rows=tuple(PrintedRow(**row) for row in table["rows"]),
    )
    for name, table in _CONTENT["tables"].items()
}
PAPER_TABLES["beyond"] = _beyond(
    {row.config for table in PAPER_TABLES.values() for row in table.rows}
)
HYPERPARAMETERS: list[dict] = _CONTENT["hyperparameters"]
"""Table 8: ``name``, ``printed`` (synthetic to real, real to real) and where it stands in a config,
``key``; ``ours`` where a config calls it otherwise."""


def runnable() -> list[str]:
    """The configs of all rows that we run, each once."""
    rows = [row for table in PAPER_TABLES.values() for row in table.rows]
    return list(dict.fromkeys(row.config for row in rows if row.config))
