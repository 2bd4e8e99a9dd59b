"""Update the tables of README.md and projects/DrawnStreets/README.md from results/*.json.

python tools/update_readme.py           rewrite them
python tools/update_readme.py --check   exit 1 if one is not what the JSON says
"""

import argparse
import functools
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from .tables import TABLES as ALL
from .tables import runs_of

ROOT = Path(__file__).resolve().parents[4]
NOT_RUN = "*Not run yet.*"
RUNS = {name: table for name, table in ALL.items() if not table.published}


def demo_table() -> str:
    """The demo's domains, what one constant class would score, and what it ran on."""
    run = json.loads((ROOT / "results" / "demo.json").read_text())
    domains = run["result"]["domains"]
    rows = [
        [name, scores["images"], f"{scores['mIoU']:.1f}", f"{run['one_class'][name]:.1f}"]
        for name, scores in domains.items()
    ]
    headers = ["domain", "images", "mIoU", "one class"]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    seconds = run["seconds"]
    drawing, training = seconds["draw"], seconds["train and evaluate"]
    return (
        f"{table}\n\n"
        f"`make demo` on {run['machine']}: drawing {drawing:.0f} s, training and evaluation "
        f"{training:.0f} s, at most {run['peak_memory_gb']:.1f} GB in one process; torch "
        f"{run['torch']}, commit {run['commit']}. mIoU in percent; *one class* is what the best "
        "constant prediction would score. Trained on the drawn day alone; `camvid_*` and "
        "`lmf_*` are real photographs."
    )


def benchmark(name: str) -> dict:
    """The result of a benchmark on the CPU."""
    return json.loads((ROOT / "results" / "benchmark" / f"{name}.json").read_text())


def machine(record: dict) -> str:
    """What it ran on; records from before it was so written say "1 CPU cores"."""
    return re.sub(r"\b1 (CPU core|thread)s\b", r"1 \1", record["machine"])


def ran_on(*runs: dict, packages: Sequence[str] = ()) -> str:
    """One sentence on runs of one machine: what it is, versions, commits."""
    record = runs[0]["environment"]
    commits = dict.fromkeys(run["environment"]["commit"] for run in runs)
    found = {name: record["versions"][name] for name in ("torch", *packages)}
    versions = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    return f"On {machine(record)}; {versions}, commit {', '.join(commits)}."


def rrqr_table() -> str:
    """Seconds and memory for a whole model, seconds a matrix, and how far float32 pivots agree."""
    run = benchmark("rrqr")
    model = run["model"]
    layers = [entry for entry in run["shapes"] if entry["model"] == model["model"]]
    ours = "`recyclelora.rrqr`"
    if run["environment"]["rrqr"] != "compiled":
        ours += f" ({run['environment']['rrqr']})"
    rows = []
    for name in layers[0]["systems"]:
        cells = ["", "", ""]
        if whole := model["systems"].get(name):
            cells = [f"{whole['median']:.1f} s", f"{whole['speedup']:.1f}x"]
            cells += [f"{whole['peak_bytes'] / 1e9:.2f} GB"]
        cells += [f"{1e3 * entry['systems'][name]['median']:.0f} ms" for entry in layers]
        rows.append([ours if name == "rrqr" else name, *cells])
    shapes = ["x".join(map(str, entry["shape"])) for entry in layers]
    headers = ["", f"{model['model']}, {model['matrices']} matrices", "speed-up", "memory", *shapes]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    share = "{:.1%}".format
    pivots = [
        [entry["weights"], entry["matrices"]]
        + [share(entry["published"][key]) for key in ("all", "last", "last as a set")]
        + [share(entry["rrqr"]["all"])]
        for entry in run["pivots"]
    ]
    headers = ["weights", "matrices", "all", "last 32", "last 32 as a set", "ours, all"]
    agreement = tabulate(pivots, headers, tablefmt="github", disable_numparse=True)
    return (
        f"{table}\n\n*published*: SciPy in float32, called twice a layer as the published code "
        "does. `torch.linalg` does not pivot. Memory beyond the weights. "
        f"{ran_on(run, packages=['scipy'])}\n\n"
        f"Pivots of the published path that are those of float64:\n\n{agreement}"
    )


def adapter_table() -> str:
    """Time against the frozen layers and saved activations, for every precision and row count."""
    run = benchmark("adapter")
    names = list(run["runs"][0]["block"])
    rows = []
    for part in run["runs"]:
        block = part["block"]
        cells = [
            f"{block[name]['ratio']:.2f}, {block[name]['saved_bytes'] / 1e9:.2f} GB"
            for name in names[1:]
        ]
        frozen = f"{block['frozen']['median']:.2f} s"
        rows.append([part["precision"], part["rows"], frozen, *cells])
    headers = ["precision", "tokens", *names]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    missing = "".join(f" {name} was not installed." for name in run["left_out"])
    return (
        f"{table}\n\nForward and backward of the four linear layers of a block "
        f"{run['settings']['width']} wide: time over the frozen layers', and what they keep for "
        f"the backward pass over {run['settings']['blocks']} blocks. Gradients checked against "
        f"float64 in the same run. {ran_on(run, packages=['peft'])}{missing}"
    )


def step_table() -> str:
    """Time and memory of one training step, and what it trains."""
    run = benchmark("step")
    rows = [
        [
            part["precision"],
            name,
            f"{system['median']:.2f} s",
            "{:.2f} to {:.2f}".format(*system["quartiles"]),
            f"{system['speedup']:.2f}x",
            f"{system['peak_bytes'] / 1e9:.2f} GB",
            f"{system['step_bytes'] / 1e9:.2f} GB",
            f"{system['trained']['adapters']:,}",
        ]
        for part in run["runs"]
        for name, system in part["systems"].items()
    ]
    headers = ["precision", "", "step", "quartiles", "speed-up", "peak memory", "beyond the model"]
    table = tabulate(rows, [*headers, "adapters"], tablefmt="github", disable_numparse=True)
    settings = run["settings"]
    return (
        f"{table}\n\nForward, backward and AdamW with {settings['backbone']}, the "
        f"{settings['head']} head and {settings['batch']} drawn streets of {settings['crop']} x "
        f"{settings['crop']} pixels. Both start from the same backbone weights and have heads of "
        "the same size; Hugging Face splits qkv into three layers, so its adapters are larger. "
        f"{ran_on(run, packages=['peft', 'transformers'])}"
    )


def memory_table() -> str:
    """Peak memory of a step of every backbone and batch, a column for each variant."""
    if not (ROOT / "results" / "benchmark" / "memory.json").is_file():
        return NOT_RUN
    record = benchmark("memory")
    runs, settings = record["runs"], record["settings"]
    rows, sizes = [], {}
    for run in runs:
        found = run["variants"].values()
        size = max(one.get("model_bytes", 0) for one in found)
        sizes[run["backbone"]] = max(size, sizes.get(run["backbone"], 0))
        model = f"{sizes[run['backbone']] / 1e9:.1f} GB"
        peaks = [
            f"{one['peak_bytes'] / 1e9:.1f} GB"
            if "peak_bytes" in one
            else f"({one['expected_bytes'] / 1e9:.0f} GB)"
            for one in found
        ]
        rows.append([run["backbone"], run["batch"], model, *peaks])
    headers = ["backbone", "batch", "model", *runs[0]["variants"]]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    measured = [run for run in runs if any("peak_bytes" in one for one in run["variants"].values())]
    guessed = any("expected_bytes" in one for run in runs for one in run["variants"].values())
    left_out = " In brackets: not run, but on the line through the two smaller batches."
    return (
        f"{table}\n\nPeak resident memory of a process on the CPU that trains, its libraries (some "
        f"0.8 GB) included: forward, backward and AdamW, the {settings['head']} head, "
        f"{settings['precision']}, {settings['crop']} x {settings['crop']} pixels; dense or sparse "
        "A. *model*: its parameters and buffers."
        f"{left_out * guessed} {ran_on(*measured)}"
    )


def hours_table() -> str:
    """Estimated hours of the paper's training, by GPU and precision."""
    if not (ROOT / "results" / "benchmark" / "hours.json").is_file():
        return NOT_RUN
    run = benchmark("hours")
    trained, assumed = run["hours"]["dense"], run["assumed"]
    rows = [
        [gpu, *("{:.1f} to {:.1f} h".format(*hours) for hours in kinds.values())]
        for gpu, kinds in trained.items()
    ]
    headers = ["GPU", *assumed["shares"]]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    shares = ", ".join(f"{a:.0%} to {b:.0%} in {k}" for k, (a, b) in assumed["shares"].items())
    a_call = "{:.0f} to {:.0f}".format(*(1e6 * seconds for seconds in assumed["seconds_a_call"]))
    dense, again = (run["counted"][name] for name in ("dense", "dense, checkpointing"))
    return (
        f"{table}\n\n**An estimate, not measured on a GPU**: {run['iterations']:,} iterations of "
        f"batch {run['batch']}. Counted in a step on the CPU: {dense['operations'] / 1e12:.2f} "
        f"TFLOP an image, {dense['calls']:,} operator calls. Assumed: products reach {shares} of "
        f"the data sheet's dense peak, a call takes {a_call} microseconds; the data keep up. "
        f"Checkpointing: {again['operations'] / dense['operations']:.2f} times the work. One "
        f"evaluation of Cityscapes, BDD100K and Mapillary: {run['evaluation_share']:.0%} of the "
        f"training's. {ran_on(run)}"
    )


def spread(values: Sequence[float]) -> str:
    """Their mean, and from two on the standard deviation; empty where there is none."""
    if len(values) < 2:
        return "".join(f"{value:.1f}" for value in values)
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def runs_table(table: str, folder: Path | None = None) -> str:
    """mIoU of every row on every domain, mean and spread over the seeds that were run.

    Args:
        folder: of the results; None for ours.
    """
    folder = folder or ROOT / "results"
    results: dict[str, list[dict]] = {name: [] for name in ALL[table].rows}
    for run in runs_of(table):
        if (file := run.result(folder)).is_file():
            results[run.row].append(json.loads(file.read_text()))
    done = [result for found in results.values() for result in found]
    if not done:
        return NOT_RUN
    domains = list(done[0]["result"]["domains"])
    lines = []
    for name, row in ALL[table].rows.items():
        found = [result["result"] for result in results[name]]
        cells = [spread([result["domains"][d]["mIoU"] for result in found]) for d in domains]
        mean = spread([result["mean_mIoU"] for result in found])
        lines.append([row.label, len(found) or "", *cells, mean])
    headers = ["", "runs", *domains, "mean"]
    text = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
    trained = [result for result in done if result["iterations"]]
    return "\n\n".join([text, *([budget(trained)] if trained else [])])


def budget(results: Sequence[dict]) -> str:
    """What all runs of a table have in common, and what one took."""
    first = results[0]
    images = {scores["images"] for scores in first["result"]["domains"].values()}
    streets = sum(settings["count"] for settings in first["streets"].values())
    source = f" on {streets:,} drawn streets" if streets else ""
    commits = sorted({result["environment"]["commit"] for result in results})
    return (
        "mIoU in percent, with the standard deviation where there are several seeds. "
        f"{first['iterations']} iterations of batch {first['batch']}{source}, "
        f"{' or '.join(map(str, sorted(images)))} images a set; a run takes "
        f"{statistics.median(result['seconds'] for result in results) / 60:.0f} minutes. On "
        f"{machine(first['environment'])}; torch {first['environment']['versions']['torch']}, "
        f"commit {', '.join(commits)}."
    )


# Pixels of the 2,975 finely labelled training images, percent of the labelled ones.
CITYSCAPES = {
    **{"road": 36.9, "sidewalk": 6.1, "building": 22.8, "wall": 0.7, "fence": 0.9, "pole": 1.2},
    **{"traffic light": 0.2, "traffic sign": 0.6, "vegetation": 15.9, "terrain": 1.2, "sky": 4.0},
    **{"person": 1.2, "rider": 0.1, "car": 7.0, "truck": 0.3, "bus": 0.2, "train": 0.2},
    **{"motorcycle": 0.1, "bicycle": 0.4},
}


def streets_table() -> str:
    """The classes of the drawn streets beside those of Cityscapes, and what drawing costs."""
    run = json.loads((ROOT / "results" / "streets.json").read_text())
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
    headers = ["class", "pixels", "Cityscapes", "streets with it", "there, median", "height"]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    settings, costs = run["settings"], run["seconds_a_street"]
    rates = ", ".join(f"{name} {1 / seconds:.1f}" for name, seconds in costs.items())
    return (
        f"{table}\n\n{settings['count']} streets of seed {settings['seed']}, "
        f"{settings['height']} x {settings['width']}. *pixels* and *Cityscapes*: percent of the "
        "labelled pixels; *there, median*: percent of the picture where the class is seen at all; "
        "*height*: mean, 0 the top of the picture and 1 the bottom. "
        f"{run['ignored_share']:.1%} of all pixels are ignored (255).\n\n"
        f"Streets a second on one core: {rates}. On {machine(run['environment'])}; generator "
        f"version {run['generator_version']}, commit {run['environment']['commit']}."
    )


TABLES = {
    "demo": demo_table,
    **{name: functools.partial(runs_table, name) for name in RUNS},
    "rrqr": rrqr_table,
    "adapter": adapter_table,
    "step": step_table,
    "memory": memory_table,
    "hours": hours_table,
}


PAGES = {"README.md": TABLES, "projects/DrawnStreets/README.md": {"streets": streets_table}}


def updated(page: str, text: str) -> str:
    """The ``text`` of a page with every table between its markers written anew."""
    for name, table in PAGES[page].items():
        begin, end = f"<!-- begin table: {name} -->", f"<!-- end table: {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{page} has no markers {begin} and {end}")
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


def main() -> None:
    """Rewrite or check the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    for page in PAGES:
        try:
            old = (ROOT / page).read_text()
            new = updated(page, old)
        except (OSError, ValueError, KeyError, TypeError) as error:
            name = type(error).__name__
            sys.exit(f"error: {page} or a file under results/ is not whole ({name}: {error})")
        if args.check and new != old:
            sys.exit(f"{page} differs from results/: run tools/update_readme.py")
        if not args.check:
            (ROOT / page).write_text(new)


if __name__ == "__main__":
    main()
