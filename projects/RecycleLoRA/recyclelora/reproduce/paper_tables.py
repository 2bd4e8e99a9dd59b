"""Tables of runs, the paper's with our numbers beside the published ones: text, Markdown, CSV."""

import csv
import json
import statistics
from collections.abc import Sequence

from detectron2.config import LazyConfig
from omegaconf import OmegaConf
from tabulate import tabulate

from recyclelora.common.atomic_write import atomic_write

from .published import HYPERPARAMETERS, PAPER_TABLES, SOURCE, TARGETS, PaperTable, PrintedRow
from .readme import runs_table
from .runs import Place, missing
from .tables import ROOT, Run, runs_of

AVERAGE = "average"


def results_of(row: PrintedRow, place: Place, seeds: Sequence[int] | None) -> list[dict]:
    """What came of a row's runs, by seed: of these seeds, or of all that were run."""
    if row.config is None:
        return []
    if seeds is None:
        stem = f"{row.config}_seed"
        found = (place.results / "paper").glob(f"{stem}*.json")
        seeds = sorted(int(file.stem.removeprefix(stem)) for file in found)
    results = [place.finished(Run("paper", row.config, seed)) for seed in seeds]
    return [result for result in results if result]


def scores_of(results: Sequence[dict], targets: Sequence[str]) -> dict[str, list[float]]:
    """Target -> mIoU of every run, and their average over the targets where all were evaluated."""
    domains = [result["result"]["domains"] for result in results]
    scores = {t: [found[t]["mIoU"] for found in domains if t in found] for t in targets}
    whole = [found for found in domains if targets and all(t in found for t in targets)]
    scores[AVERAGE] = [statistics.mean(found[t]["mIoU"] for t in targets) for found in whole]
    return scores


def spread(values: Sequence[float]) -> str:
    """Mean and, from two on, standard deviation, to the two decimals of the paper."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def printed(row: PrintedRow, target: str) -> str:
    """The published number."""
    value = row.average if target == AVERAGE else row.mIoU.get(target)
    return "" if value is None else f"{value:.2f}"


def own_targets(table: PaperTable, row: PrintedRow, found: Sequence[dict]) -> list[str]:
    """A row's targets: those that the paper prints, or else those that were evaluated."""
    evaluated = {target for result in found for target in result["result"]["domains"]}
    return [target for target in table.targets if target in (row.mIoU or evaluated)]


def write_table(name: str, place: Place, seeds: Sequence[int] | None = None) -> str:
    """Write ``table_NAME.md`` and ``.csv`` below the results; returns the table for a terminal."""
    table = PAPER_TABLES[name]
    results = [results_of(row, place, seeds) for row in table.rows]
    done = [result for found in results for result in found]
    own = [own_targets(table, row, found) for row, found in zip(table.rows, results, strict=True)]
    targets = [*(t for t in table.targets if any(t in some for some in own)), AVERAGE]
    keys = list(table.rows[0].cells)
    lines, records = [], []
    for row, found, mine in zip(table.rows, results, own, strict=True):
        scores = scores_of(found, mine)
        cells = [cell for t in targets for cell in (printed(row, t), spread(scores.get(t, [])))]
        lines.append([row.row, *row.cells.values(), *cells, len(found) or ""])
        records.append(record_of(name, row, found, scores, targets))
    heads = [head for t in targets for head in (TARGETS.get(t, "Avg."), "ours")]
    headers = ["", *keys, *heads, "runs"]
    notes = [f"Row {row.row}: {row.note}." for row in table.rows if row.note]
    text = "\n\n".join([*([" ".join(notes)] if notes else []), *conditions(done)])
    body = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
    write(place, f"table_{name}", f"# {table.title}\n\n{body}\n\n{text}\n\n{SOURCE}\n", records)
    plain = tabulate(lines, headers, disable_numparse=True)
    return f"{table.title}\n\n{plain}\n\n{text}\n{place.results / 'tables' / f'table_{name}.md'}"


def record_of(
    name: str,
    row: PrintedRow,
    found: Sequence[dict],
    scores: dict[str, list[float]],
    targets: Sequence[str],
) -> dict:
    """A line of the CSV: numbers without rounding."""
    record = {"table": name, "row": row.row, **row.cells, "config": row.config or ""}
    for target in targets:
        values = scores.get(target, [])
        record[f"{target} published"] = printed(row, target)
        record[f"{target} ours"] = statistics.mean(values) if values else ""
        record[f"{target} deviation"] = statistics.stdev(values) if len(values) > 1 else ""
    record["seeds"] = " ".join(str(result["seed"]) for result in found)
    record["protocol"] = " ".join(
        sorted({result["result"]["protocol"]["name"] for result in found})
    )
    record["ran on"] = "; ".join(sorted({result["environment"]["machine"] for result in found}))
    return record


def conditions(done: Sequence[dict]) -> list[str]:
    """Under which protocols the runs were scored, how long they trained, and on what."""
    if not done:
        return ["None of its rows was run yet."]
    protocols = {
        json.dumps({k: v for k, v in result["result"]["protocol"].items() if v not in (None, {})})
        for result in done
    }
    scored = "; ".join(sorted(protocols))
    budgets = sorted({f"{r['iterations']} iterations of batch {r['batch']}" for r in done})
    hours = statistics.median(result["seconds"] for result in done) / 3600
    machines = sorted(
        {
            f"{r['num_gpus']} x {r['environment']['machine']}"
            if r["environment"]["gpu"]
            else r["environment"]["machine"]
            for r in done
        }
    )
    versions = sorted({f"torch {r['environment']['versions']['torch']}" for r in done})
    commits = sorted({r["environment"]["commit"] for r in done})
    parts = [f"mIoU in percent, ± standard deviation over seeds. Protocol: {scored}."]
    parts.append(
        f"Ours: {' or '.join(budgets)}, {hours:.1f} hours a run; on {'; '.join(machines)}; "
        f"{', '.join(versions)}, commit {', '.join(commits)}."
    )
    if overrides := sorted({" ".join(r["overrides"][1:]) for r in done} - {""}):
        parts.append(f"Not the table's own settings: {'; '.join(overrides)}.")
    return parts


def write(place: Place, stem: str, markdown: str, records: Sequence[dict]) -> None:
    """A table's two files, each whole or not at all."""
    folder = place.results / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{stem}.md") as file:
        file.write_text(markdown, encoding="utf-8")
    with atomic_write(folder / f"{stem}.csv") as file, file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def write_small(name: str, place: Place) -> str:
    """A table that is not the paper's, as the README has it, and its runs, a line of CSV each."""
    records = []
    for run in runs_of(name):
        if result := place.finished(run):
            domains = result["result"]["domains"]
            scores = {domain: found["mIoU"] for domain, found in domains.items()}
            record = {"table": name, "row": run.row, "seed": run.seed, **scores}
            records.append(record | {"mean": result["result"]["mean_mIoU"]})
    text = runs_table(name, place.results)
    if records:
        write(place, name, f"# {name}\n\n{text}\n", records)
    return f"{name}\n\n{text}"


def write_hyperparameters(place: Place) -> str:
    """Table 8: the paper's settings beside those of the two configs that stand for them."""
    names = ("recyclelora_dinov2l_g2cbm", "recyclelora_dinov2l_c2bm")
    configs = [LazyConfig.load(str(ROOT / "configs" / f"{name}.py")) for name in names]
    settings = ("synthetic to real", "real to real")
    records = []
    for row in HYPERPARAMETERS:
        record = {"hyperparameter": row["name"], "key": row["key"]}
        for setting, value, cfg in zip(settings, row["printed"], configs, strict=True):
            ours = OmegaConf.select(cfg, row["key"])
            record[f"{setting} published"] = value
            record[f"{setting} ours"] = getattr(ours, "__name__", ours)
        records.append(record)
    title = "Table 8: hyper-parameters"
    body = tabulate(records, headers="keys", tablefmt="github", disable_numparse=True)
    write(place, "table_8", f"# {title}\n\n{body}\n\n{SOURCE}\n", records)
    return f"{title}\n\n{tabulate(records, headers='keys', disable_numparse=True)}"


def listing(name: str, place: Place, seeds: Sequence[int] | None = None) -> str:
    """A line for every row: what is published, and whether it is finished or can run here."""
    table, lines = PAPER_TABLES[name], []
    for row in table.rows:
        found = results_of(row, place, seeds)
        average = scores_of(found, own_targets(table, row, found))[AVERAGE]
        what = ", ".join(row.cells.values())
        state = state_of(row, place, found)
        lines.append([row.row, what, printed(row, AVERAGE), spread(average), row.config, state])
    headers = ["row", ", ".join(table.rows[0].cells), "published", "ours", "config", "here"]
    body = tabulate(lines, headers, disable_numparse=True, missingval="")
    return f"{table.title}\n{body}"


def state_of(row: PrintedRow, place: Place, found: Sequence[dict]) -> str:
    """Finished, begun, runnable, what it lacks, or quoted."""
    if row.config is None:
        return "quoted from the paper"
    if found:
        seeds = " ".join(str(result["seed"]) for result in found)
        return f"finished, seeds {seeds}"
    run = Run("paper", row.config, 0)
    lacking = missing(place.config_of(run))
    begun = "begun" if any((place.output / "paper").glob(f"{row.config}_seed*")) else "runnable"
    return f"needs {', '.join(lacking)}" if lacking else begun
