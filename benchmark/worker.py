"""Processes in which a benchmark runs its candidates, each in one of its own.

Every process has the same number of threads and is pinned to as many cores, so that a library that
waits for its own threads is not slowed down by the others. ``python -m benchmark.worker`` is such a
process; it computes what a :class:`Worker` asks for.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from recyclelora.engine.memory import PeakMemory

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("projects", "RecycleLoRA")


class Timed(NamedTuple):
    """What a call took, its peak memory beyond what was in use before, and its value."""

    seconds: float
    peak_bytes: int
    value: Any


class Worker:
    """A process that calls functions for one candidate.

    Parameters
    ----------
    system : str
        The candidate.
    threads : int
        Of OpenMP and every BLAS; the process may use as many cores.
    tree : Path, optional
        A source tree whose ``recyclelora`` the process imports; this one by default.
    """

    def __init__(self, system: str, threads: int, tree: Path = ROOT):
        self.system = system
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        path = os.pathsep.join([str(tree / PACKAGE), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.worker", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONPATH": path},
        )
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(self._process.pid, cores)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``function(*arguments)``; its module is imported in the process.

        Raises
        ------
        RuntimeError
            If the function raises or the process ends.
        """
        try:
            pickle.dump((function, arguments), self._process.stdin)
            self._process.stdin.flush()
            error, value = pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError):
            raise RuntimeError(
                f"a process of the benchmark ended with code {self._process.wait()}"
            ) from None
        if error:
            raise RuntimeError(f"a process of the benchmark failed:\n{error}")
        return value

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            stream.close()


@contextmanager
def workers(
    systems: Iterable[str], threads: int, earlier: Mapping[str, tuple[str, Path]]
) -> Iterator[dict[str, Worker]]:
    """Context manager: a worker for each system, and for those of earlier commits.

    Parameters
    ----------
    systems : iterable of str
    threads : int
        The same for every worker.
    earlier : mapping
        System and source tree by the name that the results have.
    """
    every = {**{system: (system, ROOT) for system in systems}, **earlier}
    with ExitStack() as stack:
        found = {}
        for name, (system, tree) in every.items():
            found[name] = Worker(system, threads, tree)
            stack.callback(found[name].close)
        print(
            f"{len(found)} candidates, each in a process of its own with {threads} pinned "
            f"thread{'s' * (threads > 1)}, alternating: {'; '.join(found)}",
            flush=True,
        )
        yield found


def alternate(
    processes: Mapping[str, Worker],
    function: Callable[..., Timed],
    *arguments: Any,
    rounds: int,
    what: str,
) -> dict[str, list[Timed]]:
    """Call ``function(system, *arguments)`` in all processes in turn: A B C A B C ...

    Other load on the machine then affects all of them alike.
    """
    runs: dict[str, list[Timed]] = {name: [] for name in processes}
    with tqdm(total=rounds * len(processes), desc=what, unit="call", delay=1) as bar:
        for _ in range(rounds):
            for name, process in processes.items():
                runs[name].append(process(function, process.system, *arguments))
                bar.update()
    return runs


@contextmanager
def source_tree(revision: str, *, cuda: bool) -> Iterator[Path]:
    """Context manager: a temporary tree of an earlier commit, with its extension built.

    Raises
    ------
    ValueError
        If git does not know ``revision``, or if the extension cannot be built.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "tree.tar")
        commands = [
            ["git", "-C", str(ROOT), "archive", "--output", str(archive), revision, "--"],
            ["tar", "-xf", str(archive), "-C", folder],
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        ]
        environment = os.environ | ({} if cuda else {"RECYCLELORA_NO_CUDA": "1"})
        for command in commands:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True
            )
            if done.returncode:
                raise ValueError(
                    f"--against: cannot build the commit {revision}: {' '.join(command)} failed "
                    f"({done.stderr.strip().splitlines()[-1:]})"
                )
        yield Path(folder)


def seconds_of(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Return how long ``call`` takes, including the kernels that it launches, and its value."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        value = call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3, value
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value


def timed(call: Callable[[], Any], device: torch.device) -> Timed:
    """Call in this process, and measure its time and its peak memory."""
    with PeakMemory(device) as peak:
        seconds, value = seconds_of(call, device)
    return Timed(seconds, peak.beyond, value)


def main(threads: int) -> None:
    """Answer the calls of a :class:`Worker` until it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print do not disturb the answers
    torch.set_num_threads(threads)
    while True:
        error = value = None
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
            with threadpool_limits(threads):
                value = function(*arguments)
        except EOFError:
            return
        except Exception:
            error = traceback.format_exc()
        pickle.dump((error, value), answers)
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
