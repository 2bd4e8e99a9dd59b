"""Launcher of the processes of a run: one process, one per GPU, or those of torchrun."""

import contextlib
import gc
import multiprocessing
import os
import shlex
import signal
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm

from recyclelora.common.validation import check_integer

from .stopping import SIGNALS

# Keys of the processes' store: the first process that failed, and the number of failed processes.
_FAILED, _ENDED = "recyclelora/failed", "recyclelora/ended"
_STORE_WAIT = 3.0  # seconds


def launch_processes(main: Callable[[Namespace], None], args: Namespace) -> None:
    """Call ``main(args)`` in every process.

    Under ``torchrun`` (which sets RANK) the processes already exist. They join a group, with NCCL
    on GPUs and gloo on CPUs. Otherwise Detectron2's launcher starts ``args.num_gpus`` processes on
    each machine.

    Parameters
    ----------
    main : Callable
        The function of one process.
    args : Namespace
        The parsed command line.

    Raises
    ------
    ValueError
        If there are fewer GPUs than requested, or a number is invalid.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _join_torchrun(main, args)
        return
    available = torch.cuda.device_count()
    check_integer("--num-gpus", args.num_gpus, least=1, most=1024)
    check_integer("--num-machines", args.num_machines, least=1, most=10_000)
    check_integer("--machine-rank", args.machine_rank, least=0, most=args.num_machines - 1)
    if args.num_gpus > max(available, 1):
        raise ValueError(
            f"--num-gpus {args.num_gpus}, but torch finds {available}: use at most that many (for "
            "several CPU processes: torchrun --nproc-per-node N tools/lazyconfig_train_net.py "
            "...)"
        )
    if args.num_machines > 1 and not available:
        raise ValueError(
            f"--num-machines {args.num_machines} needs a GPU on each machine, and torch finds "
            "none here: start CPU processes with torchrun --nnodes N tools/lazyconfig_train_net.py "
            "..."
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ValueError(
            f"--num-machines {args.num_machines} needs the address of the first machine: start "
            "all of them with --dist-url tcp://FIRST_MACHINE:PORT"
        )
    several = args.num_gpus * args.num_machines > 1
    with _forward_signals() if several else contextlib.nullcontext():
        launch(
            _run,
            num_gpus_per_machine=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )


@contextlib.contextmanager
def _forward_signals() -> Iterator[None]:
    """Forward SIGTERM and Ctrl-C to the child processes; this process ends after them."""

    def forward(number: int, _: object) -> None:
        children = multiprocessing.active_children()
        for child in children:
            os.kill(child.pid, number)
        if not children and number == signal.SIGINT:  # no child process has started
            raise KeyboardInterrupt
        if not children:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def claim_failure(error: Exception) -> bool:
    """Return whether this process must report ``error`` because it is the first that failed.

    The other processes fail later, or in collectives that the first one does not complete.

    Parameters
    ----------
    error : Exception
        The error of this process.

    Returns
    -------
    bool
        True in the process that must report its error.
    """
    try:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return True
        rank, store = dist.get_rank(), dist.distributed_c10d._get_default_store()
        first = store.compare_set(_FAILED, "", str(rank)).decode() == str(rank)
        store.add(_ENDED, 1)
        if rank == 0 and "TORCHELASTIC_RUN_ID" not in os.environ:
            # The store ends with this process, but the others still need it to ask who was first.
            end = time.monotonic() + _STORE_WAIT
            while store.add(_ENDED, 0) < dist.get_world_size() and time.monotonic() < end:
                time.sleep(0.05)
        return first
    except ValueError:  # there is no process group
        return True
    except RuntimeError:  # the process with the store has ended
        return not isinstance(error, RuntimeError)


def another_failed() -> bool:
    """Return whether another process of the run has called :func:`claim_failure`."""
    try:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return False
        return dist.distributed_c10d._get_default_store().check([_FAILED])
    except ValueError:
        return False
    except RuntimeError:
        return True


def resume_command() -> str:
    """Return the shell command that resumes the current run.

    Under ``torchrun`` on several machines, the command has dots in place of the rendezvous options.
    """
    script, *arguments = sys.argv
    as_module = Path(script) == Path(__file__).with_name("train.py")
    started = ["-m", "recyclelora.engine.train"] if as_module else [script]
    if "--resume" not in arguments:
        arguments = ["--resume", *arguments]
    launcher = []
    if "LOCAL_WORLD_SIZE" in os.environ:
        workers = os.environ["LOCAL_WORLD_SIZE"]
        meeting = "--standalone" if workers == os.environ["WORLD_SIZE"] else "..."
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={workers}", meeting]
    return shlex.join([sys.executable, *launcher, *started, *arguments])


def _join_torchrun(main: Callable[[Namespace], None], args: Namespace) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        value = os.environ.get(name)
        if value is None or not value.isdecimal():
            raise ValueError(
                f"RANK and WORLD_SIZE are set, as torchrun does, but {name} is {value!r}: start by "
                "torchrun, or unset them"
            )
    gpus = torch.cuda.is_available()
    if gpus:
        local, available = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= available:
            raise ValueError(
                f"torchrun started process {local} (from 0) here, but torch finds {available} "
                "GPUs: start at most one process a GPU"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpus else "gloo")
    _create_local_group()
    _run(main, args)


def _run(main: Callable[[Namespace], None], args: Namespace) -> None:
    """Call ``main`` in one process, then destroy its process group if there is one.

    After a failure the group is not destroyed, because this could wait for collectives that the
    other processes never complete. It closes when the process ends.
    """
    try:
        main(args)
    except BaseException as raised:
        error: BaseException | None = raised
        while error is not None:  # the frames of the error and its context refer to the model
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        raise
    finally:
        # DistributedDataParallel is part of a reference cycle and must be freed before the group.
        # If its reducer were the last owner of the group, it would join gloo's threads while it
        # holds the GIL. One of these threads may need the GIL to free a tensor: a deadlock.
        gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def _create_local_group() -> None:
    """Create Detectron2's group of the ranks on this machine; Detectron2 0.6 lacks a function."""
    workers = int(os.environ["LOCAL_WORLD_SIZE"])
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(workers)
        return
    for machine in range(dist.get_world_size() // workers):
        ranks = list(range(machine * workers, (machine + 1) * workers))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
