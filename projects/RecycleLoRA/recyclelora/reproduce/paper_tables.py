"""Tables of runs as text, Markdown and CSV; those of the paper include the published scores."""

import csv
import json
import statistics
from collections.abc import Mapping, Sequence

from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from recyclelora.common.atomic_write import atomic_write

from .formatting import markdown_table, mean_std, plain_table
from .published import TARGETS, PaperTable, PrintedRow
from .readme import runs_table
from .tables import Run, runs_of
from .workspace import Workspace, missing_inputs

AVERAGE = "average"


def results_of(row: PrintedRow, workspace: Workspace, seeds: Sequence[int] | None) -> list[dict]:
    """Return the results of a row's runs.

    Parameters
    ----------
    row : PrintedRow
        The row.
    workspace : Workspace
        The folders of the runs.
    seeds : Sequence[int] or None
        The seeds, or None for all seeds that were run.

    Returns
    -------
    list[dict]
        The results in the order of the seeds.
    """
    if row.name is None:
        return []
    if seeds is None:
        stem = f"{row.name}_seed"
        found = (workspace.results / "paper").glob(f"{stem}*.json")
        seeds = sorted(int(file.stem.removeprefix(stem)) for file in found)
    results = [workspace.result_of(Run("paper", row.name, seed)) for seed in seeds]
    return [result for result in results if result]


def scores_of(results: Sequence[dict], targets: Sequence[str]) -> dict[str, list[float]]:
    """Return the mIoU of every run on every target, and the average over the targets.

    Parameters
    ----------
    results : Sequence[dict]
        The results of a row.
    targets : Sequence[str]
        Names of the targets.

    Returns
    -------
    dict[str, list[float]]
        Scores by target. The average is included only if all targets were evaluated.
    """
    domains = [result["result"]["domains"] for result in results]
    scores = {t: [found[t]["mIoU"] for found in domains if t in found] for t in targets}
    complete = [found for found in domains if targets and all(t in found for t in targets)]
    scores[AVERAGE] = [statistics.mean(found[t]["mIoU"] for t in targets) for found in complete]
    return scores


def published_score(row: PrintedRow, target: str) -> str:
    """Return the published score of a row as text.

    Parameters
    ----------
    row : PrintedRow
        The row.
    target : str
        The target, or "average".

    Returns
    -------
    str
        The score, or an empty text.
    """
    value = row.average if target == AVERAGE else row.mIoU.get(target)
    return "" if value is None else f"{value:.2f}"


def targets_of(table: PaperTable, row: PrintedRow, results: Sequence[dict]) -> list[str]:
    """Return the targets of a row, as in the paper if it has the row, otherwise as evaluated.

    Parameters
    ----------
    table : PaperTable
        The table.
    row : PrintedRow
        A row of the table.
    results : Sequence[dict]
        The results of the row.

    Returns
    -------
    list[str]
        Names of the targets.
    """
    evaluated = {target for result in results for target in result["result"]["domains"]}
    return [target for target in table.targets if target in (row.mIoU or evaluated)]


def write_table(name: str, workspace: Workspace, seeds: Sequence[int] | None = None) -> str:
    """Write ``table_NAME.md`` and ``table_NAME.csv`` to the results.

    Parameters
    ----------
    name : str
        The number of the table, or "beyond".
    workspace : Workspace
        The folders of the runs.
    seeds : Sequence[int] or None
        The seeds, or None for all seeds that were run.

    Returns
    -------
    str
        The table for a terminal.
    """
    table = workspace.published.tables[name]
    results = [results_of(row, workspace, seeds) for row in table.rows]
    own = [targets_of(table, row, found) for row, found in zip(table.rows, results, strict=True)]
    targets = [*(t for t in table.targets if any(t in some for some in own)), AVERAGE]
    lines, records = [], []
    for row, found, mine in zip(table.rows, results, own, strict=True):
        scores = scores_of(found, mine)
        pairs = [(published_score(row, t), mean_std(scores.get(t, []), 2)) for t in targets]
        cells = [cell for pair in pairs for cell in pair]
        lines.append([row.row, *row.cells.values(), *cells, len(found) or ""])
        records.append(_record(name, row, found, scores, targets))
    heads = [head for t in targets for head in (TARGETS.get(t, "Avg."), "ours")]
    headers = ["", *table.rows[0].cells, *heads, "runs"]
    notes = " ".join(f"Row {row.row}: {row.note}." for row in table.rows if row.note)
    done = [result for found in results for result in found]
    text = "\n\n".join(filter(None, [notes, *_conditions(done)]))
    body, source = markdown_table(lines, headers), workspace.published.source
    markdown = f"# {table.title}\n\n{body}\n\n{text}\n\n{source}\n"
    _write_files(workspace, f"table_{name}", markdown, records)
    file = workspace.results / "tables" / f"table_{name}.md"
    return f"{table.title}\n\n{plain_table(lines, headers)}\n\n{text}\n{file}"


def _record(
    name: str,
    row: PrintedRow,
    found: Sequence[dict],
    scores: Mapping[str, list[float]],
    targets: Sequence[str],
) -> dict:
    """Return a line of the CSV file, with scores that are not rounded."""
    record = {"table": name, "row": row.row, **row.cells, "config": row.name or ""}
    for target in targets:
        values = scores.get(target, [])
        record[f"{target} published"] = published_score(row, target)
        record[f"{target} ours"] = statistics.mean(values) if values else ""
        record[f"{target} deviation"] = statistics.stdev(values) if len(values) > 1 else ""
    record["seeds"] = " ".join(str(result["seed"]) for result in found)
    protocols = {result["result"]["protocol"]["name"] for result in found}
    machines = {result["environment"]["machine"] for result in found}
    return record | {"protocol": " ".join(sorted(protocols)), "ran on": "; ".join(sorted(machines))}


def _conditions(done: Sequence[dict]) -> list[str]:
    """Return the protocols, the length of the training, and the environments of the runs."""
    if not done:
        return ["None of its rows has been run yet."]

    def each(values) -> list[str]:
        return sorted(set(values))

    protocols = [r["result"]["protocol"].items() for r in done]
    scored = each(json.dumps({k: v for k, v in p if v not in (None, {})}) for p in protocols)
    budgets = each(f"{r['iterations']} iterations of batch {r['batch']}" for r in done)
    hours = statistics.median(result["seconds"] for result in done) / 3600
    machines = each(
        f"{r['num_gpus']} x " * bool(r["environment"]["gpu"]) + r["environment"]["machine"]
        for r in done
    )
    versions = each(f"torch {r['environment']['versions']['torch']}" for r in done)
    commits = each(r["environment"]["commit"] for r in done)
    parts = [
        f"mIoU in percent, ± standard deviation over seeds. Protocol: {'; '.join(scored)}.",
        f"Ours: {' or '.join(budgets)}, {hours:.1f} hours per run; on {'; '.join(machines)}; "
        f"{', '.join(versions)}, commit {', '.join(commits)}.",
    ]
    # The seed is between the overrides of the row and those of the command line.
    given = [" ".join(r["overrides"]).partition(f"train.seed={r['seed']}")[2] for r in done]
    if overrides := each(text.strip() for text in given if text):
        parts.append(f"Settings that differ from the table: {'; '.join(overrides)}.")
    return parts


def _write_files(
    workspace: Workspace, stem: str, markdown: str, records: Sequence[Mapping]
) -> None:
    """Write the two files of a table, each atomically."""
    folder = workspace.results / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{stem}.md") as file:
        file.write_text(markdown, encoding="utf-8")
    with (
        atomic_write(folder / f"{stem}.csv") as file,
        file.open("w", newline="", encoding="utf-8") as lines,
    ):
        writer = csv.DictWriter(lines, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def write_small_table(name: str, workspace: Workspace) -> str:
    """Write a small table as in the README, and as CSV with one line for each run.

    Parameters
    ----------
    name : str
        The name of the table.
    workspace : Workspace
        The folders of the runs.

    Returns
    -------
    str
        The table for a terminal.
    """
    records = []
    for run in runs_of(name, workspace.tables[name]):
        if result := workspace.result_of(run):
            domains = result["result"]["domains"]
            scores = {domain: found["mIoU"] for domain, found in domains.items()}
            record = {"table": name, "row": run.row, "seed": run.seed, **scores}
            records.append(record | {"mean": result["result"]["mean_mIoU"]})
    text = runs_table(name, workspace.results)
    if records:
        _write_files(workspace, name, f"# {name}\n\n{text}\n", records)
    return f"{name}\n\n{text}"


def write_hyperparameters(workspace: Workspace) -> str:
    """Write Table 8, with the settings of the paper and of the two corresponding configs.

    Parameters
    ----------
    workspace : Workspace
        The folders of the runs.

    Returns
    -------
    str
        The table for a terminal.
    """
    names = ("recyclelora_dinov2l_g2cbm", "recyclelora_dinov2l_c2bm")
    configs = [LazyConfig.load(str(workspace.root / "configs" / f"{name}.py")) for name in names]
    settings = ("synthetic to real", "real to real")
    records = []
    for row in workspace.published.hyperparameters:
        record = {"hyperparameter": row["name"], "key": row["key"]}
        for setting, value, cfg in zip(settings, row["printed"], configs, strict=True):
            ours = OmegaConf.select(cfg, row["key"])
            record[f"{setting} published"] = value
            record[f"{setting} ours"] = getattr(ours, "__name__", ours)
        records.append(record)
    title, source = "Table 8: hyper-parameters", workspace.published.source
    markdown = f"# {title}\n\n{markdown_table(records, 'keys')}\n\n{source}\n"
    _write_files(workspace, "table_8", markdown, records)
    return f"{title}\n\n{plain_table(records, 'keys')}"


def list_table(name: str, workspace: Workspace, seeds: Sequence[int] | None = None) -> str:
    """List the rows of a table with their published average and their state.

    Parameters
    ----------
    name : str
        The number of the table, or "beyond".
    workspace : Workspace
        The folders of the runs.
    seeds : Sequence[int] or None
        The seeds, or None for all seeds that were run.

    Returns
    -------
    str
        The list for a terminal.
    """
    table, lines = workspace.published.tables[name], []
    for row in table.rows:
        found = results_of(row, workspace, seeds)
        average = scores_of(found, targets_of(table, row, found))[AVERAGE]
        scores = [published_score(row, AVERAGE), mean_std(average, 2)]
        state = _state(row, workspace, found)
        lines.append([row.row, ", ".join(row.cells.values()), *scores, row.name, state])
    headers = ["row", ", ".join(table.rows[0].cells), "published", "ours", "config", "here"]
    return f"{table.title}\n{plain_table(lines, headers)}"


def _state(row: PrintedRow, workspace: Workspace, found: Sequence[dict]) -> str:
    """Return the state of a row: finished, begun, runnable, quoted, or its missing inputs."""
    if row.name is None:
        return "quoted from the paper"
    if found:
        seeds = " ".join(str(result["seed"]) for result in found)
        return f"finished, seeds {seeds}"
    if lacking := missing_inputs(workspace.config_of(Run("paper", row.name, 0))):
        return f"needs {', '.join(lacking)}"
    began = any((workspace.output / "paper").glob(f"{row.name}_seed*"))
    return "begun" if began else "runnable"


def list_runs(runs: Sequence[Run], workspace: Workspace) -> str:
    """List runs of the small tables with their state and score.

    Parameters
    ----------
    runs : Sequence[Run]
        The runs.
    workspace : Workspace
        The folders of the runs.

    Returns
    -------
    str
        The list for a terminal.
    """
    lines = []
    for run in runs:
        cells = ["begun" if workspace.folder(run).is_dir() else "to do", "", ""]
        if result := workspace.result_of(run):
            cells = ["finished", f"{result['result']['mean_mIoU']:.1f}", f"{result['seconds']:.0f}"]
        lines.append([run.table, run.row, run.seed, *cells])
    return plain_table(lines, ["table", "row", "seed", "state", "mean mIoU", "seconds"])
