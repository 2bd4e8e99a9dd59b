"""What the adapters of a table's runs learned: measures as JSON, and the trained factors."""

from pathlib import Path

import torch
from torch import nn

from recyclelora.adapters.trained_pair import trained_pairs
from recyclelora.analysis.measures import analyze_adapters, by_block
from recyclelora.common.atomic_write import write_json
from recyclelora.common.safetensors_file import write_safetensors
from recyclelora.engine.build import build_run

from .environment import environment
from .formatting import read_json
from .tables import Run
from .workspace import Workspace

#: Rows whose trained factors are kept, because the paper compares them.
KEPT = ("recyclelora", "minor_svd", "dual_kaiming")


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
    checkpoint, evaluation = workspace.outputs(run)
    for file in (checkpoint, evaluation):
        if not file.is_file():
            raise FileNotFoundError(
                f"{run.name} has not been trained and evaluated here ({file} does not exist): run "
                "the row first, or give the --output of its run"
            )
    cpu = torch.device("cpu")
    config = str(workspace.root / workspace.config_file(run))
    model, _, iterations = build_run(
        config, workspace.overrides_of(run), str(checkpoint), device=cpu
    )
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
        "mean_mIoU": read_json(evaluation)["mean_mIoU"],
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
