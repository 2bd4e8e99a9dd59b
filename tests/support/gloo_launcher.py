"""The training tool with Detectron2's launcher on a machine without GPUs, for its tests.

v0.6 starts processes with NCCL on GPUs only. Here its module is patched to find GPUs and to use
gloo; the rest is its own code and ours. The processes that it starts import this file, so they are
patched as well.
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
    """Join the group with gloo instead of ``backend``."""
    torch.distributed.init_process_group("gloo", **options)


ours.torch = SimpleNamespace(cuda=gpus)
theirs.torch = SimpleNamespace(cuda=gpus)
theirs.dist = SimpleNamespace(
    init_process_group=init_process_group,
    new_group=torch.distributed.new_group,
)

if __name__ == "__main__":
    train.main()
