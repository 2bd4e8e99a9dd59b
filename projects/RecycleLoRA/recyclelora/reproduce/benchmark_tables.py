"""The tables of the benchmarks; each function takes the content of a benchmark's JSON file."""

from .formatting import markdown_table, ran_on


def rrqr_table(run: dict) -> str:
    """Seconds and memory for a whole model, seconds a matrix, and how far float32 pivots agree."""
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
    table = markdown_table(rows, headers)
    share = "{:.1%}".format
    pivots = [
        [entry["weights"], entry["matrices"]]
        + [share(entry["published"][key]) for key in ("all", "last", "last as a set")]
        + [share(entry["rrqr"]["all"])]
        for entry in run["pivots"]
    ]
    headers = ["weights", "matrices", "all", "last 32", "last 32 as a set", "ours, all"]
    agreement = markdown_table(pivots, headers)
    return (
        f"{table}\n\n*published*: SciPy in float32, called twice a layer as the published code "
        "does. `torch.linalg` does not pivot. Memory beyond the weights. "
        f"{ran_on(run, packages=['scipy'])}{_roofline(run)}\n\n"
        f"Pivots of the published path that are those of float64:\n\n{agreement}"
    )


def _roofline(run: dict) -> str:
    """How far one thread is from its limit; empty in results that did not measure it."""
    if not run.get("roofline"):
        return ""
    block, rates = run["roofline"]["block"], run["roofline"]["rates"]
    return (
        f"\n\nOn one thread `rrqr` decomposes a block in {block['rrqr']:.2f} s, "
        f"{block['published'] / block['rrqr']:.1f}x as fast as *published*. Its operations and "
        f"bytes would take {block['limit']:.2f} s at the rates of this thread: dgemm "
        f"{rates['dgemm'] / 1e9:.0f} GFLOP/s, sgemm {rates['sgemm'] / 1e9:.0f} GFLOP/s, "
        f"{rates['bandwidth'] / 1e9:.0f} GB/s."
    )


def adapter_table(run: dict) -> str:
    """Time against the frozen layers and saved activations, for every precision and row count."""
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
    table = markdown_table(rows, ["precision", "tokens", *names]) + host_table(run)
    missing = "".join(f" {name} was not installed." for name in run["left_out"])
    return (
        f"{table}\n\nForward and backward of the four linear layers of a block "
        f"{run['settings']['width']} wide: time over the frozen layers', and what they keep for "
        f"the backward pass over {run['settings']['blocks']} blocks. Gradients checked against "
        f"float64 in the same run. {ran_on(run, packages=['peft'])}{missing}"
    )


def host_table(run: dict) -> str:
    """Microseconds of the host for a tiny layer; empty in results that did not time it."""
    if "host" not in run:
        return ""
    rows = [
        [part["precision"], "yes" if part["bias"] else "no"]
        + [f"{1e6 * system['median']:.0f} us" for system in part["systems"].values()]
        for part in run["host"]
    ]
    table = markdown_table(rows, ["host time", "bias", *run["host"][0]["systems"]])
    return f"\n\nOne thread, forward and backward of a layer 16 wide:\n\n{table}"


def step_table(run: dict) -> str:
    """Time and memory of one training step, and what it trains."""
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
    table = markdown_table(rows, [*headers, "adapters"])
    settings = run["settings"]
    return (
        f"{table}\n\nForward, backward and AdamW with {settings['backbone']}, the "
        f"{settings['head']} head and {settings['batch']} drawn streets of {settings['crop']} x "
        f"{settings['crop']} pixels. Both start from the same backbone weights and have heads of "
        "the same size; Hugging Face splits qkv into three layers, so its adapters are larger. "
        f"{ran_on(run, packages=['peft', 'transformers'])}"
    )


def memory_table(record: dict) -> str:
    """Peak memory of a step of every backbone and batch, a column for each variant."""
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
    table = markdown_table(rows, ["backbone", "batch", "model", *runs[0]["variants"]])
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


def hours_table(run: dict) -> str:
    """Estimated hours of the paper's training, by GPU and precision."""
    trained, assumed = run["hours"]["dense"], run["assumed"]
    rows = [
        [gpu, *("{:.1f} to {:.1f} h".format(*hours) for hours in kinds.values())]
        for gpu, kinds in trained.items()
    ]
    table = markdown_table(rows, ["GPU", *assumed["shares"]])
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


def models_table(run: dict) -> str:
    """What adapt does to every family of models."""
    rows = [
        [
            part["library"],
            part["family"],
            part["layers"],
            *(part[key] or "" for key in ("too_small", "warned", "unreached")),
            *(
                "" if part["change"][key] is None else f"{part['change'][key]:.0e}"
                for key in ("float32", "float64")
            ),
        ]
        for part in run["runs"]
    ]
    headers = ["library", "family", "adapted", "too small", "warned", "unreached"]
    table = markdown_table(rows, [*headers, "change", "in float64"])
    missing = "".join(f" {name} was not installed." for name in run["left_out"])
    main, sub = run["ranks"]
    libraries = ("timm", "transformers", "torchvision")
    packages = [name for name in libraries if name not in run["left_out"]]
    return (
        f"{table}\n\n*adapted*, *too small*: linear layers with adapters, and those smaller than "
        f"{main} + {sub}. *warned*: weights outside linear layers that the warning names. "
        "*unreached*: adapted layers that these inputs do not use. Where the last column is "
        f"empty, the model has no float64 kernel. "
        f"{ran_on(run, packages=packages)}{missing}"
    )


BENCHMARKS = {
    "rrqr": rrqr_table,
    "adapter": adapter_table,
    "step": step_table,
    "memory": memory_table,
    "hours": hours_table,
}
