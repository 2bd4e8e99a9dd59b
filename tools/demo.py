#!/usr/bin/env python
"""The whole path on drawn streets: what a user would type, one command after the other.

    python tools/demo.py      (or: make demo)

Fetches a small DINOv2, draws streets, trains RecycleLoRA on those by day and evaluates on held-out
days, on night, fog and rain, and on the real sets below RECYCLELORA_DATA where it is set. Ends with
a table and ``output/demo/run/domains.png``. Run again, it goes on where it stopped.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from drawn_streets import write_streets
from recyclelora.backbone.weights import locate_weights
from recyclelora.common.validation import format_error
from recyclelora.evaluation.domains import write_json

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


def draw() -> None:
    """Draw all streets, as ``tools/draw_streets.py`` would one after the other."""
    for folder, count, domain, seed in STREETS:
        root = OUTPUT / "streets" / folder
        options = f"{root.relative_to(ROOT)} --count {count} --domain {domain} --seed {seed}"
        print(f"$ python tools/draw_streets.py {options}", flush=True)
        write_streets(root, domain=domain, count=count, seed=seed)


def train() -> None:
    """Train and evaluate by the tool that every config is for."""
    command = ["tools/lazyconfig_train_net.py", "--config-file", CONFIG, "--resume"]
    print(f"$ python {' '.join(command)}", flush=True)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit("error: the demo stopped in the training above; run it again to go on")


def summarise(seconds: dict[str, float]) -> dict:
    """What was measured, on what, and the result, as ``output/demo/demo.json``."""
    if torch.cuda.is_available():
        machine = torch.cuda.get_device_name()
    else:
        cores = torch.get_num_threads()
        machine = f"{cores} CPU core{'s' * (cores > 1)} ({platform.machine()})"
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
    write_json(OUTPUT / "demo.json", summary)
    return summary


def main() -> None:
    """Fetch, draw, train, evaluate, and say where to look."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()  # it takes none
    try:
        print("== Pretrained weights: DINOv2 ViT-S", flush=True)
        print(locate_weights("dinov2_vits14_focus"))
        print("\n== Streets", flush=True)
        start = time.perf_counter()
        draw()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {format_error(error)}")
    drawn = time.perf_counter()
    print("\n== Train on the streets by day, evaluate everywhere", flush=True)
    train()
    seconds = {"draw": drawn - start, "train and evaluate": time.perf_counter() - drawn}
    summary = summarise(seconds)
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    picture = OUTPUT / "run" / "domains.png"
    print(f"\n{spent}; at most {summary['peak_memory_gb']} GB in one process")
    print(f"A row per domain (input, prediction, truth): {picture.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
