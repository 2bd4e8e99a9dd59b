"""The demo: draw streets, train on daytime streets, and evaluate on other domains."""

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from drawn_streets import write_streets
from recyclelora.backbone.weights import locate_weights
from recyclelora.common.atomic_write import write_json
from recyclelora.common.devices import pick_device

from .environment import environment
from .formatting import read_json
from .workspace import TRAIN

# Folder, number of pictures, domain, seed. All held-out sets have the same seed, so only weather
# and light differ between their streets.
STREETS = [
    ("day", 320, "day", 0),
    ("day_val", 20, "day", 1),
    ("night", 20, "night", 1),
    ("fog", 20, "fog", 1),
    ("rain", 20, "rain", 1),
]


def run_demo(root: Path) -> None:
    """Fetch weights, draw streets, train and evaluate in the folder ``output/demo``.

    Parameters
    ----------
    root : Path
        The checkout.

    Raises
    ------
    ValueError, OSError
        If the weights or the streets are not available, or if the training stopped.
    """
    output = root / "output" / "demo"
    print("== Pretrained weights: DINOv2 ViT-S", flush=True)
    print(locate_weights("dinov2_vits14_focus"))
    print("\n== Streets", flush=True)
    start = time.perf_counter()
    for name, count, domain, seed in STREETS:
        folder = output / "streets" / name
        options = f"{folder.relative_to(root)} --count {count} --domain {domain} --seed {seed}"
        print(f"$ python tools/draw_streets.py {options}", flush=True)
        write_streets(folder, domain=domain, count=count, seed=seed)
    drawn = time.perf_counter()
    print("\n== Train on daytime streets, evaluate on all domains", flush=True)
    command = [*TRAIN, "--config-file", "configs/demo.py", "--resume"]
    print(f"$ {shlex.join(command)}", flush=True)
    if _run_training([sys.executable, *command[1:]], root):
        raise ValueError("the training of the demo stopped; run the demo again to continue")
    seconds = {"draw": drawn - start, "train and evaluate": time.perf_counter() - drawn}
    peak = write_summary(root, output, seconds)["peak_memory_gb"]
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    picture = output.relative_to(root) / "run" / "domains.png"
    print(f"\n{spent}; at most {peak} GB in one process")
    print(f"One row per domain (input, prediction, truth): {picture}")


def _run_training(command: list[str], root: Path) -> int:
    """Run the training and return its exit code. On Ctrl-C, let it save, then end this program."""
    interrupted = []

    def forward(number: int, _: object) -> None:
        interrupted.append(number)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
        for child in children.split():
            os.kill(int(child), number)

    before = signal.signal(signal.SIGINT, forward)
    try:
        # A new session, so that a Ctrl-C of the terminal reaches the child only through `forward`.
        # Otherwise subprocess.run() would kill it a quarter of a second later.
        done = subprocess.run(command, cwd=root, check=False, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
    return done.returncode


def write_summary(root: Path, output: Path, seconds: dict[str, float]) -> dict:
    """Write times, machine and scores to ``output/demo.json``.

    Parameters
    ----------
    root : Path
        The checkout.
    output : Path
        The folder ``output`` of the demo.
    seconds : dict[str, float]
        Seconds by the name of the step.

    Returns
    -------
    dict
        The content of the file.
    """
    record = environment(pick_device("auto"), root)
    summary = {
        "machine": record["machine"],
        "torch": record["versions"]["torch"],
        "commit": record["commit"],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
        "result": read_json(output / "run" / "domains.json"),
        "one_class": read_json(output / "run" / "one_class.json"),
    }
    write_json(output / "demo.json", summary)
    return summary
