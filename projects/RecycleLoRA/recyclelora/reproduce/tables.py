"""Which runs make which table: a config, a row for each method, seeds. Data only.

``tools/reproduce.py`` runs them, ``tools/update_readme.py`` writes what came of the small ones and
``tools/paper_tables.py`` what came of the paper's, whose rows stand in ``tools/published.py``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .published import runnable

ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class Row:
    """One method of a table.

    Args:
        label: as the table shows it.
        overrides: ``key=value`` of the table's config; all that sets the method apart.
        seeds: one run for each.
        trains: False for the majority class, which only counts the source's labels.
        config: another than the table's.
    """

    label: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    trains: bool = True
    config: str | None = None


@dataclass(frozen=True)
class Table:
    """Runs whose results are looked at together.

    Args:
        config: below the repository's root.
        rows: by the name that ``--row`` and the files of results have.
        streets: domain -> how many streets to draw below the config's ``dataloader.streets``.
        published: the results stand beside published ones, so the datasets have to be whole.
    """

    config: str
    rows: Mapping[str, Row]
    streets: Mapping[str, int] = field(default_factory=dict)
    published: bool = False


@dataclass(frozen=True)
class Run:
    """One row of a table with one seed."""

    table: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        """What its folder and its JSON are called."""
        return f"{self.row}_seed{self.seed}"

    def result(self, results: Path = ROOT / "results") -> Path:
        """The JSON that is there once the run has ended."""
        return results / self.table / f"{self.name}.json"


def overrides(r_main: int, r_sub: int, init: str = "rrqr") -> tuple[str, ...]:
    """Those that say which adapters the backbone gets."""
    adapters = {"r_main": r_main, "r_sub": r_sub, "init": init}
    return tuple(f"model.backbone.{key}={value}" for key, value in adapters.items())


# LoRA is one adapter of the summed rank, A Kaiming-uniform and B zero, at main's learning rate:
# the one that the paper's Table 6 found best for it. Sub alone keeps its halved one, also best
# there. Scaling, head, data, order and augmentation are the same in every row.
THREE = (0, 1, 2)
MAJORITY = Row("majority class of the source", trains=False)
FROZEN = Row("frozen backbone", overrides(0, 0))
STREETS_TO_REAL = Table(
    config="configs/streets_to_real.py",
    rows={
        "majority": MAJORITY,
        "frozen": FROZEN,
        "lora": Row("LoRA, rank 36", overrides(36, 0, "kaiming"), THREE),
        "main": Row("main adapter only, 32", overrides(32, 0)),
        "sub": Row("sub adapter only, 4", overrides(0, 4)),
        "recyclelora": Row("RecycleLoRA, 32 + 4", overrides(32, 4), THREE),
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
)
CAMVID_TO_REAL = Table(
    config="configs/camvid_to_real.py",
    rows={
        "majority": MAJORITY,
        "frozen": FROZEN,
        "lora": Row("LoRA, rank 34", overrides(34, 0, "kaiming"), THREE),
        "recyclelora": Row("RecycleLoRA, 32 + 2", overrides(32, 2), THREE),
    },
)

# All tables of the paper draw on one set of runs, a row for each config, so that a run that stands
# in several of them is done once.
PAPER = Table(
    config="configs/recyclelora_dinov2l_g2cbm.py",
    rows={name: Row(name, config=f"configs/{name}.py") for name in runnable()},
    published=True,
)
TABLES = {"streets_to_real": STREETS_TO_REAL, "camvid_to_real": CAMVID_TO_REAL, "paper": PAPER}


def runs_of(table: str) -> Iterator[Run]:
    """All runs of a table: first every row once, then the further seeds."""
    rows = TABLES[table].rows
    pairs = [(i, name, seed) for name, row in rows.items() for i, seed in enumerate(row.seeds)]
    for _, name, seed in sorted(pairs, key=lambda pair: pair[0]):  # stable: rows keep their order
        yield Run(table, name, seed)
