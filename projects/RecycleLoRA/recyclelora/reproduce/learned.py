"""What the adapters of a table's runs learned: measures as JSON, and the trained factors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from recyclelora.adapters.trained_pair import trained_pairs
from recyclelora.analysis.measures import analyze_adapters, by_block
from recyclelora.common.atomic_write import write_json
from recyclelora.common.safetensors_file import write_safetensors
from recyclelora.engine.build import build_run

from .environment import environment
from .formatting import NOT_RUN, markdown_table, ran_on, read_json
from .tables import Run
from .workspace import Workspace

#: Rows whose trained factors are kept, because the paper compares them.
KEPT = ("recyclelora", "minor_svd", "dual_kaiming")
#: The paper's values for DINOv2-L, trained on GTAV: Tables 1 and 2. Figure 4 has no numbers.
PAPER = {
    "recyclelora": {"ratio": "1.22", "largest": "1.63", "efficiency": "0.770"},
    "minor_svd": {"efficiency": "0.650"},
}


def measure_run(run: Run, workspace: Workspace) -> Path:
    """Measure the adapters of a finished run and write ``results/adapters/ROW_seedN.json``.

    The rows in ``KEPT`` also get ``ROW_seedN.safetensors`` with the trained factors in float16. The
    measures are those of the original factors.

    Parameters
    ----------
    run : Run
        The run.
    workspace : Workspace
        The folders of the runs.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    FileNotFoundError
        If the checkpoint or the evaluation of the run does not exist on this machine.
    ValueError
        If the run has no adapters.
    """
    iterations = workspace.config_of(run).train.max_iter
    checkpoint = workspace.folder(run) / f"iter_{iterations:07d}.pth"
    for file in (checkpoint, workspace.folder(run) / "domains.json"):
        if not file.is_file():
            raise FileNotFoundError(
                f"{run.name} has not been trained and evaluated here, because {file} does not "
                "exist: run the row first, or give the --output of its run"
            )
    cpu = torch.device("cpu")
    config = str(workspace.root / workspace.config_file(run))
    model, _, _ = build_run(config, workspace.overrides_of(run), str(checkpoint), device=cpu)
    measures = analyze_adapters(model)
    folder = workspace.results / "adapters"
    folder.mkdir(parents=True, exist_ok=True)
    if run.row in KEPT:
        write_safetensors(
            folder / f"{run.name}.safetensors",
            {name: factor.half() for name, factor in trained_factors(model).items()},
            {"format": "pt"},
        )
    spaces = ("input", "input_random", "output", "output_random")
    found = {space: by_block(measures["layers"], space) for space in spaces}
    result = {
        "table": run.table,
        "row": run.row,
        "label": workspace.row_of(run).label,
        "seed": run.seed,
        "iterations": iterations,
        "mean_mIoU": read_json(workspace.folder(run) / "domains.json")["mean_mIoU"],
        "environment": environment(cpu, workspace.root),
        "overall": measures["overall"],
        "subspace_by_block": {space: values for space, values in found.items() if values},
        "moved": {layer["name"]: layer["moved"] for layer in measures["layers"]},
    }
    write_json(folder / f"{run.name}.json", result)
    return folder / f"{run.name}.json"


def trained_factors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the trained factors of all layers, by the names ``LAYER.main.A``, ``LAYER.sub.B``.

    Parameters
    ----------
    model : nn.Module
        An adapted model.

    Returns
    -------
    dict[str, Tensor]
        Contiguous tensors in float64: A (r, in) and B (out, r). The update of a layer is
        ``s (B A - B_0 A_0)`` with the initial factors B_0 and A_0.
    """
    return {
        f"{pair.name}.{kind}.{name}": getattr(factor, name).contiguous().clone()
        for pair in trained_pairs(model)
        for kind, factor in pair.factors.items()
        for name in ("A", "B")
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
