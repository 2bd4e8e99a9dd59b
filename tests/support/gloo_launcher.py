"""The training tool through Detectron2's launcher where there is no GPU, for its tests.

v0.6 starts processes with NCCL on GPUs alone. Here the module that does so is told that there are
GPUs, and gets gloo instead; all else is its own code and ours. What is patched at the top is
patched in the processes that it starts, too: they import this file.
"""

import sys
from types import SimpleNamespace

import torch.distributed

import recyclelora.engine.launch as ours
from recyclelora.engine import train

theirs = sys.modules[ours.launch.__module__]
gpus = SimpleNamespace(
    is_available=lambda: True, device_count=lambda: 2, set_device=lambda index: None
)


def init_process_group(backend, **options):
    """Join by gloo, whatever was asked for."""
    torch.distributed.init_process_group("gloo", **options)


ours.torch = SimpleNamespace(cuda=gpus)
theirs.torch = SimpleNamespace(cuda=gpus)
theirs.dist = SimpleNamespace(
    init_process_group=init_process_group,
    new_group=torch.distributed.new_group,
)

if __name__ == "__main__":
    ours.launch_processes(train.run, train.argument_parser().parse_args())
