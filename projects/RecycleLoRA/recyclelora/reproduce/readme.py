"""Generate the tables of README.md and of the documentation from the JSON files in results/."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from .benchmark_tables import BENCHMARKS, models_table
from .formatting import (
    NOT_RUN,
    commits_of,
    machine_of,
    markdown_table,
    mean_std,
    ran_on,
    read_json,
)
from .gpu_table import gpu_table
from .learned_table import ROWS, learned_table
from .tables import SMALL_TABLES, runs_of


def demo_table(results: Path) -> str:
    """Return a table of the demo's domains, with the score of the best constant class.

    Parameters
    ----------
    results : Path
        The folder of results.

    Returns
    -------
    str
        Markdown.
    """
    run = read_json(results / "demo.json")
    rows = [
        [name, scores["images"], f"{scores['mIoU']:.1f}", f"{run['one_class'][name]:.1f}"]
        for name, scores in run["result"]["domains"].items()
    ]
    seconds = run["seconds"]
    return (
        f"{markdown_table(rows, ['domain', 'images', 'mIoU', 'one class'])}\n\n"
        f"`make demo` on {run['machine']}: drawing {seconds['draw']:.0f} s, training and "
        f"evaluation {seconds['train and evaluate']:.0f} s, at most {run['peak_memory_gb']:.1f} GB "
        f"in one process; torch {run['torch']}, commit {run['commit']}. mIoU in percent; *one "
        "class* is the score of the best constant prediction. The model was trained only on drawn "
        "daytime streets; `camvid_*` and `lmf_*` are real photographs."
    )


def benchmark_table(name: str, results: Path) -> str:
    """Return the table of a benchmark.

    Parameters
    ----------
    name : str
        The name of the benchmark.
    results : Path
        The folder of results.

    Returns
    -------
    str
        Markdown.
    """
    file = results / "benchmark" / f"{name}.json"
    return BENCHMARKS[name](read_json(file)) if file.is_file() else NOT_RUN


def models_of_adapters(results: Path) -> str:
    """Return the table of the model families on which ``adapt`` was tested.

    Parameters
    ----------
    results : Path
        The folder of results.

    Returns
    -------
    str
        Markdown.
    """
    file = results / "benchmark" / "models.json"
    return models_table(read_json(file)) if file.is_file() else NOT_RUN


def runs_table(name: str, results: Path) -> str:
    """Return the mIoU of the rows of a small table that have runs, on every domain.

    Parameters
    ----------
    name : str
        The name of the table.
    results : Path
        The folder of results.

    Returns
    -------
    str
        Markdown.
    """
    table = SMALL_TABLES[name]
    found: dict[str, list[dict]] = {row: [] for row in table.rows}
    for run in runs_of(name, table):
        if (file := run.result_file(results)).is_file():
            found[run.row].append(read_json(file))
    done = [result for row in found.values() for result in row]
    if not done:
        return NOT_RUN
    domains = list(done[0]["result"]["domains"])
    lines = []
    for name, row in table.rows.items():
        if not found[name]:
            continue
        scores = [result["result"] for result in found[name]]
        cells = [mean_std([score["domains"][d]["mIoU"] for score in scores], 1) for d in domains]
        mean = mean_std([score["mean_mIoU"] for score in scores], 1)
        lines.append([row.label, len(scores), *cells, mean])
    text = markdown_table(lines, ["", "runs", *domains, "mean"])
    trained = [result for result in done if result["iterations"]]
    return f"{text}\n\n{_budget(trained)}" if trained else text


def _budget(results: Sequence[Mapping]) -> str:
    """Return a sentence on the shared settings of all runs of a table, and on the time of a run."""
    first = results[0]
    images = {scores["images"] for scores in first["result"]["domains"].values()}
    streets = sum(settings["count"] for settings in first["streets"].values())
    source = f" on {streets:,} drawn streets" if streets else ""
    return (
        "mIoU in percent, with the standard deviation over seeds. "
        f"{first['iterations']} iterations with batch size {first['batch']}{source}, "
        f"{' or '.join(map(str, sorted(images)))} images per set; a run takes "
        f"{statistics.median(result['seconds'] for result in results) / 60:.0f} minutes. "
        f"{ran_on(*results)}"
    )


# Percent of the labelled pixels in the 2,975 finely labelled training images.
CITYSCAPES = {
    **{"road": 36.9, "sidewalk": 6.1, "building": 22.8, "wall": 0.7, "fence": 0.9, "pole": 1.2},
    **{"traffic light": 0.2, "traffic sign": 0.6, "vegetation": 15.9, "terrain": 1.2, "sky": 4.0},
    **{"person": 1.2, "rider": 0.1, "car": 7.0, "truck": 0.3, "bus": 0.2, "train": 0.2},
    **{"motorcycle": 0.1, "bicycle": 0.4},
}


def streets_table(results: Path) -> str:
    """Return a table of the classes of the drawn streets and of Cityscapes.

    Parameters
    ----------
    results : Path
        The folder of results.

    Returns
    -------
    str
        Markdown.
    """
    run = read_json(results / "streets.json")
    rows = [
        [
            name,
            f"{100 * found['pixel_share']:.2f}",
            f"{CITYSCAPES[name]:.1f}",
            f"{found['streets_with']:.0%}",
            f"{100 * found['median_share_where_present']:.2f}",
            f"{found['mean_height']:.2f}",
        ]
        for name, found in run["classes"].items()
    ]
    headers = ["class", "pixels", "Cityscapes", "streets with it", "median share", "height"]
    table = markdown_table(rows, headers)
    settings, costs = run["settings"], run["seconds_a_street"]
    rates = ", ".join(f"{name} {1 / seconds:.1f}" for name, seconds in costs.items())
    return (
        f"{table}\n\n{settings['count']} streets of seed {settings['seed']}, "
        f"{settings['height']} x {settings['width']}. *pixels* and *Cityscapes*: percent of the "
        "labelled pixels. *median share*: median percent of a picture, over the pictures that "
        "contain the class. *height*: mean position, from 0 at the top of the picture to 1 at the "
        "bottom. "
        f"{run['ignored_share']:.1%} of all pixels are ignored (255).\n\n"
        f"Streets per second on one core: {rates}. On {machine_of(run['environment'])}; generator "
        f"version {run['generator_version']}, commit {commits_of([run])}."
    )


SCORES = ("ECE", "AUROC")  # the scores of tools/calibrate.py


def calibration_table(results: Path) -> str:
    """Return the calibration error and the AUROC of errors of the shipped segmentor.

    Parameters
    ----------
    results : Path
        The folder of results, with the file that ``tools/calibrate.py`` wrote.

    Returns
    -------
    str
        Markdown.
    """
    run = read_json(results / "calibration.json")
    rows = [
        [
            f"{name} (fit)" if name in run["fitted_on"] else name,
            *(f"{scores[when][score]:.1f}" for score in SCORES for when in ("before", "after")),
        ]
        for name, scores in run["domains"].items()
    ]
    headers = [
        "domain",
        *(f"{score}, {when}" for score in SCORES for when in ("T = 1", "fitted T")),
    ]
    return (
        f"{markdown_table(rows, headers)}\n\nIn percent. T = {run['temperature']:.2f}, fitted on "
        f"{run['pixels']:,} pixels; their negative log-likelihood falls from "
        f"{run['NLL']['before']:.3f} to {run['NLL']['after']:.3f} nats."
    )


PAGES: dict[str, dict[str, Callable[[Path], str]]] = {
    "README.md": {
        "demo": demo_table,
        "streets_to_real": partial(runs_table, "streets_to_real"),
    },
    "docs/results.md": {"camvid_to_real": partial(runs_table, "camvid_to_real")},
    "docs/analysis.md": {"learned": partial(learned_table, ROWS)},
    "docs/prediction.md": {"calibration": calibration_table},
    "docs/models.md": {"models": models_of_adapters},
    "docs/benchmarks.md": {
        **{name: partial(benchmark_table, name) for name in BENCHMARKS},
        "gpu": gpu_table,
    },
    "projects/DrawnStreets/README.md": {"streets": streets_table},
}
"""For each page, the names of its tables and the functions that make them from the results."""


def update_tables(page: str, text: str, results: Path) -> str:
    """Replace the tables of a page.

    Parameters
    ----------
    page : str
        Path of the page in the checkout.
    text : str
        Content of the page.
    results : Path
        The folder of results.

    Returns
    -------
    str
        The page with new tables between their markers.

    Raises
    ------
    ValueError
        If the page lacks a marker.
    """
    for name, table in PAGES[page].items():
        begin, end = f"<!-- begin table: {name} -->", f"<!-- end table: {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"expected the markers {begin} and {end} in {page}: add them")
        text = f"{before}{begin}\n{table(results)}\n{end}{after}"
    return text


def update_pages(root: Path, *, check: bool = False) -> None:
    """Rewrite the tables of all pages of a checkout.

    Parameters
    ----------
    root : Path
        The checkout.
    check : bool
        Whether to compare the pages without writing them.

    Raises
    ------
    ValueError
        If a page or a result file is invalid, or if ``check`` finds a difference.
    """
    for page in PAGES:
        try:
            old = (root / page).read_text(encoding="utf-8")
            new = update_tables(page, old, root / "results")
        except (OSError, ValueError, KeyError, TypeError) as error:
            name = type(error).__name__
            raise ValueError(
                f"{page} or a file in results/ is incomplete ({name}: {error})"
            ) from error
        if check and new != old:
            raise ValueError(f"{page} differs from results/: run tools/update_readme.py")
        if not check:
            (root / page).write_text(new, encoding="utf-8")
