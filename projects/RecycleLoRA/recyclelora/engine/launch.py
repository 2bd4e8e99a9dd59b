"""Start the processes of a run: one, several GPUs of one or more machines, or those of torchrun."""

import contextlib
import gc
import multiprocessing
import os
import shlex
import signal
import sys
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


def launch_processes(main: Callable[[Namespace], None], args: Namespace) -> None:
    """Call ``main(args)`` in every process.

    Under ``torchrun`` (which sets RANK) the processes exist already and only join: with NCCL on
    GPUs, with gloo on CPUs. Otherwise Detectron2's launcher starts ``args.num_gpus`` here.

    Raises:
        ValueError: more GPUs are asked for than there are, or numbers that fit no machine.
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
            f"--num-gpus {args.num_gpus} but torch sees {available}: ask for at most that many "
            "(several CPU processes: torchrun --nproc-per-node N tools/lazyconfig_train_net.py ...)"
        )
    if args.num_machines > 1 and not available:
        raise ValueError(
            f"--num-machines {args.num_machines} needs a GPU on each and torch sees none here: "
            "start CPU processes by torchrun --nnodes N tools/lazyconfig_train_net.py ..."
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ValueError(
            f"--num-machines {args.num_machines} needs the address where they meet: give all of "
            "them --dist-url tcp://FIRST_MACHINE:PORT"
        )
    several = args.num_gpus * args.num_machines > 1
    with _passing_on_signals() if several else contextlib.nullcontext():
        launch(
            _run,
            num_gpus_per_machine=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )


@contextlib.contextmanager
def _passing_on_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C are for the processes that run meanwhile; this one ends after them."""

    def pass_on(number: int, _: object) -> None:
        children = multiprocessing.active_children()
        for child in children:
            os.kill(child.pid, number)
        if not children:  # none has begun
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resume_command() -> str:
    """The shell command that goes on with the run of this process: as it was started, and resumed.

    Under ``torchrun`` on several machines it has dots for where they meet, which the user knows.
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
                f"torchrun started process {local} (from 0) here, but torch sees {available} GPUs: "
                "start at most one process a GPU"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpus else "gloo")
    _create_local_group()
    _run(main, args)


def _run(main: Callable[[Namespace], None], args: Namespace) -> None:
    """One process's ``main``, and the end of its part in the group of processes, if it is in one.

    After a failure the group is left to the end of the process, which cuts it off: to end it here
    could mean to wait for sums that never come.
    """
    try:
        main(args)
    except BaseException as raised:
        error: BaseException | None = raised
        while error is not None:  # the frames hold the model, those of what came before it too
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        raise
    finally:
        # What main left, DistributedDataParallel in its cycles among it, must go before the group.
        # If its reducer were the last to hold the group, it would join gloo's threads under the
        # lock of the interpreter, which one of them may be waiting for to free a tensor: a process
        # that never ends.
        gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def _create_local_group() -> None:
    """Tell Detectron2 which ranks share this machine (main has a function for it, v0.6 has not)."""
    workers = int(os.environ["LOCAL_WORLD_SIZE"])
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(workers)
        return
    for machine in range(dist.get_world_size() // workers):
        ranks = list(range(machine * workers, (machine + 1) * workers))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
