"""Start the processes of a run: one, several GPUs of one or more machines, or those of torchrun."""

import os
from argparse import Namespace
from collections.abc import Callable

import torch
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm


def launch_processes(main: Callable[[Namespace], None], args: Namespace) -> None:
    """Call ``main(args)`` in every process.

    Under ``torchrun`` (which sets RANK) the processes exist already and only join: with NCCL on
    GPUs, with gloo on CPUs. Otherwise Detectron2's launcher starts ``args.num_gpus`` here.

    Raises:
        ValueError: more GPUs are asked for than there are.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _join_torchrun(main, args)
        return
    available = torch.cuda.device_count()
    if args.num_gpus > max(available, 1):
        raise ValueError(
            f"--num-gpus {args.num_gpus} but torch sees {available}: ask for at most that many "
            "(several CPU processes: torchrun --nproc-per-node N tools/lazyconfig_train_net.py ...)"
        )
    launch(
        main,
        num_gpus_per_machine=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def _join_torchrun(main: Callable[[Namespace], None], args: Namespace) -> None:
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        _create_local_group()
        main(args)
    finally:
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
