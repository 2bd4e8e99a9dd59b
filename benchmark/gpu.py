#!/usr/bin/env python
"""Build, test and measure on the present GPU in nine minutes: what ``benchmark/gpu.sh`` runs.

    benchmark/gpu.sh
    benchmark/gpu.sh --device cpu --tiny

The parts run one after the other, each in processes of its own and with its own share of the nine
minutes. Time that a part does not use is available to later parts. A part that fails or takes too
long does not stop the others, but the exit code is then 1. Each part writes its JSON, its plot and
its log to ``--output`` as it ends, ``summary.json`` has the state of all parts, and a table is
printed at the end. The network is not used. With ``--tiny`` every part is as small as possible,
which tests the parts and measures nothing.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmark import measure
from benchmark.gpu_parts import PARTS, Command, Part, Skipped
from benchmark.measure import ROOT
from recyclelora.common.atomic_write import write_json
from recyclelora.common.command_line import path_argument
from recyclelora.reproduce.environment import environment
from recyclelora.reproduce.formatting import plain_table
from recyclelora.reproduce.gpu_table import HEADERS, gpu_rows, read_parts

LAST_LINES = 15  # of the log of a part that fails
TINY_SHARE = 4  # factor of all shares in a tiny run, because the machine may be busy
GRACE = 5  # seconds between the request to end and the kill


def stop(process: subprocess.Popen) -> None:
    """End a part and all of its processes: it is the leader of their process group."""
    for signal_number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def run_command(command: Command, log: Path, seconds: float) -> str:
    """Run a command for at most some seconds, and return why it failed, or an empty string."""
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | command.variables
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command.words, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=stream,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s, its time limit"
        finally:
            stop(process)
    return "" if code == 0 else f"{Path(command.words[0]).name} ended with code {code}"


def run_part(part: Part, args: argparse.Namespace, deadline: float) -> dict[str, object]:
    """Run a part until its deadline, and return its state."""
    log, started = args.output / f"{part.name}.log", time.monotonic()
    for suffix in ("json", "png", "log"):  # of an earlier run
        (args.output / f"{part.name}.{suffix}").unlink(missing_ok=True)
    status, sentence, details = "done", "", {}
    try:
        for command in part.commands(args):
            sentence = run_command(command, log, deadline - time.monotonic())
            if sentence:
                break
        details = part.details(args)
    except Skipped as reason:
        status, sentence = "skipped", str(reason)
    except Exception as error:  # of any part, so that the later ones run
        sentence = sentence or f"{type(error).__name__}: {error}"
    if status == "done" and (sentence or details.get("failed")):
        status = "failed"
        if log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            print("\n".join(f"  | {line}" for line in lines[-LAST_LINES:]))
    return {
        "status": status,
        "sentence": sentence,
        "seconds": time.monotonic() - started,
        "log": log.name if log.is_file() else None,
        **details,
    }


def write_summary(args: argparse.Namespace, states: Mapping[str, Mapping]) -> None:
    """Write ``summary.json``; a new process imports the extension that was just built."""
    if not hasattr(args, "environment"):
        args.environment = measure.in_new_process(environment, args.device, ROOT)
    settings = {"device": str(args.device), "tiny": args.tiny}
    content = {"environment": args.environment, "settings": settings, "parts": states}
    write_json(args.output / "summary.json", content)


def run_parts(args: argparse.Namespace, parts: Sequence[Part], started: float) -> dict[str, dict]:
    """Run the parts in order. The deadline of a part is the sum of all shares up to its own."""
    states: dict[str, dict] = {}
    deadline = started
    for part in parts:
        deadline += part.seconds * (TINY_SHARE if args.tiny else 1)
        print(f"== {part.name}: at most {deadline - time.monotonic():.0f} s", flush=True)
        states[part.name] = state = run_part(part, args, deadline)
        reason = f": {state['sentence']}" if state["sentence"] else ""
        print(f"   {state['status']} in {state['seconds']:.0f} s{reason}", flush=True)
        write_summary(args, states)
    return states


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", type=measure.device, default="cuda", help="default: cuda")
    add("--tiny", action="store_true", help="test the parts; the times are meaningless")
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    add(
        "--output", type=path_argument,
        help="the folder of the results; default: results/benchmark/gpu, and build/gpu for the CPU "
        "or with --tiny",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    real = args.device.type == "cuda" and not args.tiny
    default = ROOT / ("results/benchmark/gpu" if real else "build/gpu")
    args.output = Path(args.output or default).absolute()
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def main(arguments: list[str] | None = None) -> None:
    """Run the parts, print the table, and exit with code 1 if a part failed."""
    started = time.monotonic()
    args = parse(arguments)
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else "the CPU"
    print(f"Device: {name}. Results: {args.output}", flush=True)
    states = run_parts(args, [PARTS[name] for name in args.parts], started)
    print(f"\n{plain_table(gpu_rows(read_parts(args.output)), HEADERS)}")
    failed = [name for name, state in states.items() if state["status"] == "failed"]
    print(
        f"\n{time.monotonic() - started:.0f} s; {len(states) - len(failed)} parts without an error"
    )
    if failed:
        sys.exit(f"error: these parts failed: {', '.join(failed)}")


if __name__ == "__main__":
    measure.exit_with_sentence(main)
