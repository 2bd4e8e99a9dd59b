"""Worker processes of a benchmark, one for each candidate.

Every process has the same number of threads and is pinned to as many cores, so that a library that
waits for its own threads does not slow down the others. ``python -m benchmark.worker`` starts such
a process. It computes the calls of a :class:`Worker`.
"""

import importlib.util
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

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("projects", "RecycleLoRA")


def _peak_memory() -> type:
    """Return ``PeakMemory`` of this tree: a worker may import ``recyclelora`` of an earlier one."""
    file = ROOT / PACKAGE / "recyclelora" / "engine" / "memory.py"
    specification = importlib.util.spec_from_file_location("benchmark.memory_of_this_tree", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.PeakMemory


PeakMemory = _peak_memory()


class Timed(NamedTuple):
    """The time of a call, its peak memory beyond the use before it, and its value."""

    seconds: float
    peak_bytes: int
    value: Any


class Worker:
    """A process that calls functions for one candidate.

    Parameters
    ----------
    system : str
        The name of the candidate.
    threads : int
        The number of threads of OpenMP and every BLAS, and of cores that the process may use.
    tree : Path, optional
        The source tree whose ``recyclelora`` the process imports; by default this one.
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
        """Call ``function(*arguments)`` in the process, which imports the function's module.

        Parameters
        ----------
        function : Callable
            A function at the top level of a module.
        *arguments : object
            Its arguments, which must be picklable.

        Returns
        -------
        object
            The value of the function.

        Raises
        ------
        RuntimeError
            If the function raises an error or the process ends.
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
    """Yield a worker for each system and for each system of earlier commits.

    Parameters
    ----------
    systems : iterable of str
        The systems.
    threads : int
        The number of threads of each worker.
    earlier : mapping
        System and source tree, by name in the results.

    Yields
    ------
    dict
        The workers by name.
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

    Other load on the machine then affects all of them equally.
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
    """Yield a temporary source tree of an earlier commit, with its extension built.

    Parameters
    ----------
    revision : str
        The commit.
    cuda : bool
        Whether to build the CUDA part.

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    ValueError
        If git does not find ``revision``, or if the extension cannot be built.
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
    """Return the seconds of ``call``, including the kernels that it launches, and its value."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(device):  # an event is recorded in a stream of the current device
            torch.cuda.synchronize()
            start.record()
            value = call()
            end.record()
            end.synchronize()
        return start.elapsed_time(end) / 1e3, value
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value


def timed(call: Callable[[], Any], device: torch.device) -> Timed:
    """Run a call in this process, and measure its time and its peak memory."""
    with PeakMemory(device) as peak:
        seconds, value = seconds_of(call, device)
    return Timed(seconds, peak.beyond, value)


def main(threads: int) -> None:
    """Serve the calls of a :class:`Worker` until it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps the prints of libraries out of the answers
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
