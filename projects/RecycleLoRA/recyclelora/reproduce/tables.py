"""The tables of runs: a config, one row for each method, and seeds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .published import read_published


@dataclass(frozen=True)
class Row:
    """One method of a table.

    Attributes
    ----------
    label : str
        The text in the table.
    overrides : tuple of str
        All overrides ``key=value`` of the config that distinguish the method.
    seeds : tuple of int
        One run for each seed.
    trains : bool
        False for the majority class, which only counts the labels of the source.
    config : str or None
        A config other than that of the table.
    """

    label: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    trains: bool = True
    config: str | None = None


@dataclass(frozen=True)
class Table:
    """Runs whose results are compared.

    Attributes
    ----------
    config : str
        Path of the config in the checkout.
    rows : Mapping[str, Row]
        Rows by the name that ``--row`` and the result files use.
    streets : Mapping[str, int]
        Number of streets to draw in the config's ``dataloader.streets``, by domain.
    published : bool
        Whether the results are compared with published ones, which requires complete datasets.
    """

    config: str
    rows: Mapping[str, Row]
    streets: Mapping[str, int] = field(default_factory=dict)
    published: bool = False


@dataclass(frozen=True)
class Run:
    """One row of a table with one seed.

    Attributes
    ----------
    table, row : str
        Names of the table and the row.
    seed : int
        The seed.
    """

    table: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder and of its result file."""
        return f"{self.row}_seed{self.seed}"

    def result_file(self, results: Path) -> Path:
        """Return the JSON file that exists after the run has ended.

        Parameters
        ----------
        results : Path
            The folder of results.

        Returns
        -------
        Path
            The path.
        """
        return results / self.table / f"{self.name}.json"


def adapter_overrides(r_main: int, r_sub: int, init: str = "rrqr") -> tuple[str, ...]:
    """Return overrides that set the ranks and the initialisation of the adapters.

    Parameters
    ----------
    r_main, r_sub : int
        The ranks.
    init : str
        The initialisation.

    Returns
    -------
    tuple[str, ...]
        Overrides ``key=value``.
    """
    adapters = {"r_main": r_main, "r_sub": r_sub, "init": init}
    return tuple(f"model.backbone.{key}={value}" for key, value in adapters.items())


# LoRA is one adapter with the sum of both ranks, Kaiming-uniform A and zero B. It has the learning
# rate of the main adapter, which is the best in the paper's Table 6. The sub adapter alone keeps
# its halved rate, also the best in Table 6. Scaling, head, data, order and augmentation are the
# same in every row.
_SEEDS = (0, 1, 2)
MAJORITY = Row("majority class of the source", trains=False)
FROZEN = Row("frozen backbone", adapter_overrides(0, 0))
SMALL_TABLES = {
    "streets_to_real": Table(
        config="configs/streets_to_real.py",
        rows={
            "majority": MAJORITY,
            "frozen": FROZEN,
            "lora": Row("LoRA, rank 36", adapter_overrides(36, 0, "kaiming"), _SEEDS),
            "main": Row("main adapter only, 32", adapter_overrides(32, 0)),
            "sub": Row("sub adapter only, 4", adapter_overrides(0, 4)),
            "recyclelora": Row("RecycleLoRA, 32 + 4", adapter_overrides(32, 4), _SEEDS),
            "minor_svd": Row("minor SVD as in SoMA, 36", adapter_overrides(36, 0, "svd")),
            "dual_kaiming": Row("dual, Kaiming, 32 + 4", adapter_overrides(32, 4, "kaiming")),
            "major_svd": Row("major SVD as in PiSSA, 36", adapter_overrides(36, 0, "pissa")),
            "dual_svd": Row("dual, SVD, 32 + 4", adapter_overrides(32, 4, "svd")),
        },
        streets={
            "day": 500,
            "textures": 150,
            "dusk": 150,
            "rain": 150,
            "night": 100,
            "fog": 75,
            "snow": 75,
        },
    ),
    "camvid_to_real": Table(
        config="configs/camvid_to_real.py",
        rows={
            "majority": MAJORITY,
            "frozen": FROZEN,
            "lora": Row("LoRA, rank 34", adapter_overrides(34, 0, "kaiming"), _SEEDS),
            "recyclelora": Row("RecycleLoRA, 32 + 2", adapter_overrides(32, 2), _SEEDS),
        },
    ),
}
"""Tables that are not in the paper, on images that are available to everyone."""


def all_tables(root: Path) -> dict[str, Table]:
    """Return the small tables, and all runs of the paper's tables as the table ``paper``.

    A run that several tables of the paper share is one row of ``paper``.

    Parameters
    ----------
    root : Path
        The checkout.

    Returns
    -------
    dict[str, Table]
        The tables by name.
    """
    rows = {
        row.name: Row(row.name, tuple(row.overrides), config=f"configs/{row.config}.py")
        for table in read_published(root).tables.values()
        for row in table.rows
        if row.name
    }
    paper = Table("configs/recyclelora_dinov2l_g2cbm.py", rows, published=True)
    return {**SMALL_TABLES, "paper": paper}


def runs_of(name: str, table: Table) -> Iterator[Run]:
    """Return all runs of a table: first each row with its first seed, then the other seeds.

    Parameters
    ----------
    name : str
        The name of the table.
    table : Table
        The table.

    Returns
    -------
    Iterator[Run]
        The runs.
    """
    rows = table.rows.items()
    pairs = [(i, row, seed) for row, method in rows for i, seed in enumerate(method.seeds)]
    for _, row, seed in sorted(pairs, key=lambda pair: pair[0]):  # stable: rows keep their order
        yield Run(name, row, seed)
