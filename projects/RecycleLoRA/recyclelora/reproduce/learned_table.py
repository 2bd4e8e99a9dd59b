"""The table of what the adapters of a table's runs learned, beside the paper's values."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .formatting import NOT_RUN, markdown_table, ran_on, read_json

#: The rows of the documentation.
ROWS = ("recyclelora", "minor_svd", "major_svd", "lora", "dual_kaiming", "dual_svd")
#: The paper's values for DINOv2-L, trained on GTAV: Tables 1 and 2. Figure 4 has no numbers.
PAPER = {
    "recyclelora": {"ratio": "1.22", "largest": "1.63", "efficiency": "0.770"},
    "minor_svd": {"efficiency": "0.650"},
}


def learned_table(rows: Sequence[str], results: Path) -> str:
    """Return a table of the measures of Tables 1 and 2 and Figures 3 and 4, for each row.

    Parameters
    ----------
    rows : Sequence[str]
        Names of rows.
    results : Path
        The folder of results.

    Returns
    -------
    str
        Markdown.
    """
    files = [results / "adapters" / f"{row}_seed0.json" for row in rows]
    found = [read_json(file) for file in files if file.is_file()]
    if not found:
        return NOT_RUN
    headers = ["", "norm ratio", "largest", "effective rank", "efficiency", "rank of the change"]
    headers += [
        "rows of A",
        "columns of B",
        "phi input (random)",
        "phi output (random)",
        "moved",
        "mIoU",
    ]
    table = markdown_table([_cells(result) for result in found], headers)
    return (
        f"{table}\n\n*norm ratio*, *largest*: norms of the pivot columns of A divided by those of "
        "the others, mean and largest of all layers (Table 1). *effective rank*, *efficiency*: of "
        "the main adapter (Table 2). *rank of the change*: effective rank of B A minus its initial "
        "value. *rows of A*, *columns of B*: mean absolute cosine similarity (Figure 3). *phi*: "
        "similarity of main and sub, beside its value for random subspaces (Figure 4). *moved*: "
        "change of the main adapter relative to the norm of W0. *mIoU*: mean of the test sets. In "
        "brackets after Tables 1 and 2: the paper's values for DINOv2-L, GTAV and rank 32. "
        f"Seed 0. {ran_on(*found)}"
    )


def _cells(result: Mapping) -> list[str]:
    overall, paper = result["overall"], PAPER.get(result["row"], {})
    main, norms = overall["main"], overall["main"].get("column_norms")
    subspace = overall.get("subspace")

    def beside(value: str, key: str) -> str:
        return f"{value} ({paper[key]})" if key in paper else value

    return [
        result["label"],
        beside(f"{norms['mean_ratio']:.2f}", "ratio") if norms else "",
        beside(f"{norms['max_ratio']:.2f}", "largest") if norms else "",
        f"{main['effective_rank']:.1f} of {main['rank']:.0f}",
        beside(f"{main['efficiency']:.3f}", "efficiency"),
        f"{main['change_rank']:.1f}",
        f"{main['row_cosine']:.3f}",
        f"{main['column_cosine']:.3f}",
        *(
            f"{subspace[key]:.3f} ({subspace[f'{key}_random']:.3f})" if subspace else ""
            for key in ("input", "output")
        ),
        f"{main['moved']:.4f}",
        f"{result['mean_mIoU']:.1f}",
    ]
