"""Tables of the benchmarks, from the content of the benchmarks' JSON files."""

from .formatting import markdown_table, ran_on


def rrqr_table(run: dict) -> str:
    """Return a table of decomposition times and memory, and of the agreement of pivots.

    Parameters
    ----------
    run : dict
        The content of ``rrqr.json``.

    Returns
    -------
    str
        Markdown.
    """
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
        f"{table}\n\n*published*: SciPy in float32, called twice per layer as in the published "
        "code. `torch.linalg` does not pivot. *memory* excludes the weights. "
        f"{ran_on(run, packages=['scipy'])}{_roofline(run)}\n\n"
        f"Share of the pivots in float32 that equal those in float64:\n\n{agreement}"
    )


def _roofline(run: dict) -> str:
    """Return how far one thread is from its limit, or "" for results that did not measure it."""
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
    """Return a table of the time and the saved activations of adapters, for all precisions.

    Parameters
    ----------
    run : dict
        The content of ``adapter.json``.

    Returns
    -------
    str
        Markdown.
    """
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
        f"{table}\n\nForward and backward pass of the four linear layers of a block with "
        f"{run['settings']['width']} channels: the time divided by that of the frozen layers, and "
        f"the memory saved for the backward pass in {run['settings']['blocks']} blocks. The same "
        "run compares the gradients with float64. "
        f"{ran_on(run, packages=['peft'])}{missing}"
    )


def host_table(run: dict) -> str:
    """Return a table of the host's time for a tiny layer.

    Parameters
    ----------
    run : dict
        The content of ``adapter.json``.

    Returns
    -------
    str
        Markdown; empty if the benchmark did not measure this time.
    """
    if "host" not in run:
        return ""
    rows = [
        [part["precision"], "yes" if part["bias"] else "no"]
        + [f"{1e6 * system['median']:.0f} us" for system in part["systems"].values()]
        for part in run["host"]
    ]
    table = markdown_table(rows, ["host time", "bias", *run["host"][0]["systems"]])
    return f"\n\nForward and backward pass of a layer with 16 channels on one thread:\n\n{table}"


def step_table(run: dict) -> str:
    """Return a table of the time and memory of a training step.

    Parameters
    ----------
    run : dict
        The content of ``step.json``.

    Returns
    -------
    str
        Markdown.
    """
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
        f"{table}\n\nForward pass, backward pass and AdamW with {settings['backbone']}, the "
        f"{settings['head']} head and {settings['batch']} drawn streets of {settings['crop']} x "
        f"{settings['crop']} pixels. Both models start from the same backbone weights and have "
        "heads of the same size. Hugging Face splits qkv into three layers, so its adapters are "
        "larger. "
        f"{ran_on(run, packages=['peft', 'transformers'])}"
    )


def step_sizes_table(record: dict) -> str:
    """Return a table of the time and memory of a training step, with one row for each size.

    Parameters
    ----------
    record : dict
        The content of ``step_sizes.json``.

    Returns
    -------
    str
        Markdown.
    """
    runs, settings = record["runs"], record["settings"]
    rows = []
    for run in runs:
        theirs, ours = run["systems"].values()
        times = [f"{system['median']:.2f} s" for system in (theirs, ours)]
        memory = [f"{system['peak_bytes'] / 1e9:.2f} GB" for system in (theirs, ours)]
        size = [run["backbone"], run["head"], run["precision"]]
        rows.append([*size, *times, f"{ours['speedup']:.2f}x", *memory])
    theirs, ours = runs[0]["systems"]
    headers = ["backbone", "head", "precision", theirs, ours, "speed-up", "their memory", "ours"]
    return (
        f"{markdown_table(rows, headers)}\n\nMedians of {settings['rounds']} steps with "
        f"{settings['batch']} drawn streets of {settings['crop']} x {settings['crop']} pixels, and "
        "the peak memory of the process. "
        f"{ran_on(*runs, packages=['peft', 'transformers'])}"
    )


def memory_table(record: dict) -> str:
    """Return a table of the peak memory of a step, with one column for each variant.

    Parameters
    ----------
    record : dict
        The content of ``memory.json``.

    Returns
    -------
    str
        Markdown.
    """
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
    left_out = " Values in brackets are extrapolated linearly from the two smaller batches."
    return (
        f"{table}\n\nPeak resident memory of a training process on the CPU, including about 0.8 GB "
        f"for its libraries: forward pass, backward pass and AdamW with the {settings['head']} "
        f"head in {settings['precision']}, images of {settings['crop']} x {settings['crop']} "
        "pixels, dense or sparse A. *model*: parameters and buffers."
        f"{left_out * guessed} {ran_on(*measured)}"
    )


def hours_table(run: dict) -> str:
    """Return a table of the estimated hours of the paper's training, by GPU and precision.

    Parameters
    ----------
    run : dict
        The content of ``hours.json``.

    Returns
    -------
    str
        Markdown.
    """
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
        f"{table}\n\n**This is an estimate, not a measurement on a GPU**, for "
        f"{run['iterations']:,} iterations with batch size {run['batch']}. A step on the CPU needs "
        f"{dense['operations'] / 1e12:.2f} TFLOP per image and {dense['calls']:,} operator calls. "
        f"The estimate assumes that a call takes {a_call} microseconds, that loading data does not "
        "limit the speed, and that matrix products reach these shares of the dense peak in the "
        f"data sheet: {shares}. Checkpointing needs "
        f"{again['operations'] / dense['operations']:.2f} times the work. One "
        "evaluation of Cityscapes, BDD100K and Mapillary takes "
        f"{run['evaluation_share']:.0%} of the time of the training. {ran_on(run)}"
    )


def models_table(run: dict) -> str:
    """Return a table of the effect of ``adapt`` on every family of models.

    Parameters
    ----------
    run : dict
        The content of ``models.json``.

    Returns
    -------
    str
        Markdown.
    """
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
        f"{table}\n\n*adapted*, *too small*: number of linear layers with adapters, and of those "
        f"smaller than {main} + {sub}. *warned*: weights outside linear layers that the warning "
        "names. *unreached*: adapted layers that these inputs do not use. The last column is "
        "empty if a model has no float64 kernel. "
        f"{ran_on(run, packages=packages)}{missing}"
    )


def input_table(run: dict) -> str:
    """Return a table of samples per second and core, for each kind of pair and candidate.

    Parameters
    ----------
    run : dict
        The content of ``input.json``.

    Returns
    -------
    str
        Markdown.
    """
    rows = []
    for kind, found in run["kinds"].items():
        (ours, *others) = found["candidates"].values()
        cells = [f"{ours['samples_per_second']:.0f}"]
        for other in others:
            speed = other["samples_per_second"]
            cells.append(f"{speed:.1f} ({ours['samples_per_second'] / speed:.2f}x)")
        sizes = [f"{size:,.0f} kB" for size in found["kilobytes"]]
        rows.append([kind, *sizes, *cells])
    names = list(found["candidates"])
    settings = run["settings"]
    return (
        f"{markdown_table(rows, ['pairs', 'image', 'label', *names])}\n\n"
        f"Training samples of {settings['crop']} pixels a second on one core; in brackets, how "
        "many times as many this code reads. Each candidate in a process of its own with one "
        f"thread on the same core, in turns; medians of {settings['rounds']} rounds of "
        f"{settings['samples']} samples, which are the same bit by bit. {ran_on(run)}"
    )


def evaluation_table(run: dict) -> str:
    """Return a table of images per second of whole evaluations, and of the merged model alone.

    Parameters
    ----------
    run : dict
        The content of ``evaluation.json``.

    Returns
    -------
    str
        Markdown.
    """
    rows = []
    for part in run["evaluations"]:
        (ours, *_) = part["candidates"].values()
        for name, found in part["candidates"].items():
            speed = found["images_per_second"]
            ratio, memory = ours["images_per_second"] / speed, found["peak_bytes"] / 1e9
            cells = [f"{speed:.3g}", f"{ratio:.2f}x", f"{memory:.2f} GB"]
            cells.append(f"{found['equal_pixels']:.2%}")
            rows.append([part["set"], part["precision"], name, found["images"], *cells])
    headers = ["images", "precision", "", "number", "images / s", "this code", "memory"]
    whole = markdown_table(rows, [*headers, "equal pixels"])
    rows = []
    for part in run["models"]:
        ours = part["candidates"]["this code"]["windows_per_second"]
        for name, found in part["candidates"].items():
            speed, memory = found["windows_per_second"], found["peak_bytes"] / 1e9
            cells = [f"{speed:.2f}", f"{ours / speed:.2f}x", f"{memory:.2f} GB"]
            rows.append([part["precision"], name, *cells])
    model = markdown_table(rows, ["model alone", "", "windows / s", "this code", "memory"])
    settings = run["settings"]
    return (
        f"{whole}\n\n{model}\n\n*this code*: how many times as fast this code is. *memory*: the "
        "peak beyond the memory before the evaluation. *equal pixels*: the share of pixels with "
        "the same class as by this code. Each candidate in a process of its own with "
        f"{settings['threads']} pinned threads, in turns; medians of {settings['rounds']} rounds. "
        f"{ran_on(run, packages=['transformers', 'peft'])}"
    )


BENCHMARKS = {
    "rrqr": rrqr_table,
    "adapter": adapter_table,
    "step": step_table,
    "step_sizes": step_sizes_table,
    "memory": memory_table,
    "hours": hours_table,
    "input": input_table,
    "evaluation": evaluation_table,
}
