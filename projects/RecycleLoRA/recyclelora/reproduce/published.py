"""The paper's tables as printed, and the config and overrides of the run of each row.

The numbers are in ``published.json``, one row per line, with their source.
"""

import ast
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TARGETS = {"cityscapes": "→Citys.", "bdd100k": "→BDD", "mapillary": "→Map."}
TARGETS |= {f"acdc_{one}": f"→{one.title()}" for one in ("fog", "night", "rain", "snow")}


@dataclass(frozen=True)
class PrintedRow:
    """One row of a table.

    Attributes
    ----------
    row : int
        Number of the row in the printed table, from 1.
    cells : Mapping[str, str]
        The cells before the scores, by column header.
    mIoU : Mapping[str, float]
        The printed score in percent for each target. Empty if the paper does not have the row.
    average : float or None
        The printed average.
    name : str or None
        The name of its run, or None if the row is only quoted.
    config : str or None
        The config in ``configs/`` from which the run starts. It is ``name`` if the row has no
        overrides.
    overrides : sequence of str
        Overrides ``key=value`` of the config.
    note : str or None
        A remark on the scores.
    """

    row: int
    cells: Mapping[str, str]
    mIoU: Mapping[str, float] = field(default_factory=dict)
    average: float | None = None
    name: str | None = None
    config: str | None = None
    overrides: Sequence[str] = ()
    note: str | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, or a table of this project in the same form.

    Attributes
    ----------
    title : str
        The title.
    targets : tuple of str
        Names as in the configs' ``dataloader.test``, in the order of the columns.
    rows : tuple of PrintedRow
        The rows.
    """

    title: str
    targets: tuple[str, ...]
    rows: tuple[PrintedRow, ...]


@dataclass(frozen=True)
class Published:
    """The content of ``published.json``.

    Attributes
    ----------
    source : str
        The paper, and the definition of its scores.
    tables : Mapping[str, PaperTable]
        Tables by number. "beyond" contains the configs for which the paper has no row.
    hyperparameters : list of dict
        Table 8: ``name``, ``printed`` (synthetic to real, real to real), ``key`` in a config, and
        ``ours`` if a config uses another name.
    """

    source: str
    tables: Mapping[str, PaperTable]
    hyperparameters: list[dict]


@functools.cache
def read_published(root: Path) -> Published:
    """Read the published tables, and add "beyond" with the other configs.

    Parameters
    ----------
    root : Path
        The checkout.

    Returns
    -------
    Published
        The tables.
    """
    content = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    tables = {
        name: PaperTable(
            title=f"Table {name}: {table['title']}",
            targets=tuple(table["targets"]),
            rows=tuple(PrintedRow(**{"name": row["config"], **row}) for row in table["rows"]),
        )
        for name, table in content["tables"].items()
    }
    printed = {row.config for table in tables.values() for row in table.rows}
    tables["beyond"] = _beyond(root, printed)
    return Published(content["source"], tables, content["hyperparameters"])


def _beyond(root: Path, printed: set[str | None]) -> PaperTable:
    """Return the configs METHOD_BACKBONE_SETTING that no row uses, labelled by their docstrings."""
    files = [
        file
        for file in sorted((root / "configs").glob("*_*_*.py"))
        if file.stem not in printed and not file.stem.endswith("_to_real")
    ]
    labels = [
        ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))).partition("\n")[0]
        for file in files
    ]
    rows = [
        PrintedRow(row=number, cells={"what": label}, name=file.stem, config=file.stem)
        for number, (file, label) in enumerate(zip(files, labels, strict=True), 1)
    ]
    return PaperTable("Beyond the paper", tuple(TARGETS), tuple(rows))
