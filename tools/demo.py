#!/usr/bin/env python
"""The whole path on drawn streets: what a user would type, one command after the other.

    python tools/demo.py      (or: make demo)

Fetches a small DINOv2, draws streets, trains RecycleLoRA on those by day and evaluates on held-out
days, on night, fog and rain, and on the real sets below RECYCLELORA_DATA where it is set. Ends with
a table and ``output/demo/run/domains.png``. Run again, it goes on where it stopped.
"""

import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from recyclelora.backbone.weights import locate_weights

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "output" / "demo"
CONFIG = "configs/demo.py"

# Folder, number of pictures, domain, seed. One seed for all held-out sets: the same streets, and
# only weather and light differ.
STREETS = [
    ("day", 320, "day", 0),
    ("day_val", 20, "day", 1),
    ("night", 20, "night", 1),
    ("fog", 20, "fog", 1),
    ("rain", 20, "rain", 1),
]


def run(title: str, *command: str) -> float:
    """Show a command, run it from the repository's root, and return its seconds."""
    print(f"\n== {title}\n$ python {' '.join(command)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"error: the demo stopped at: {title}")
    return time.perf_counter() - start


def summarise(seconds: dict[str, float]) -> dict:
    """What was measured, on what, and the result, as ``output/demo/demo.json``."""
    if torch.cuda.is_available():
        machine = torch.cuda.get_device_name()
    else:
        machine = f"{torch.get_num_threads()} CPU cores ({platform.machine()})"
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = {
        "machine": machine,
        "torch": torch.__version__,
        "commit": commit.stdout.strip() or "unknown",
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
        "result": json.loads((OUTPUT / "run" / "domains.json").read_text()),
        "one_class": json.loads((OUTPUT / "run" / "one_class.json").read_text()),
    }
    (OUTPUT / "demo.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def main() -> None:
    """Fetch, draw, train, evaluate, and say where to look."""
    print("== Pretrained weights: DINOv2 ViT-S", flush=True)
    try:
        print(locate_weights("dinov2_vits14_focus"))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    seconds = {"draw": 0.0}
    for folder, count, domain, seed in STREETS:
        options = [f"output/demo/streets/{folder}", f"--count={count}", f"--domain={domain}"]
        seconds["draw"] += run(
            f"Streets: {folder}", "tools/draw_streets.py", *options, f"--seed={seed}"
        )
    tool = "tools/lazyconfig_train_net.py"
    seconds["train and evaluate"] = run(
        "Train on the streets by day, evaluate everywhere",
        tool,
        "--config-file",
        CONFIG,
        "--resume",
    )
    summary = summarise(seconds)
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    picture = OUTPUT / "run" / "domains.png"
    print(f"\n{spent}; at most {summary['peak_memory_gb']} GB in one process")
    print(f"A row per domain (input, prediction, truth): {picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
