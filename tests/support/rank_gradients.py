"""One rank's training step, run by test_distributed.py: RANK WORLD_SIZE INIT_FILE OUTPUT [BROKEN].

BROKEN is the rank whose images are NaN; the output then contains the error.
"""

import gc
import sys

import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from recyclelora.mask2former import build_segmentor

from .small_segmentor import SMALL, Patches

BATCH = 4


def sample(seed):
    """Later images contain more classes, so the normalisers of the ranks differ."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 19, (1, 2 * seed + 1), generator=generator)
    label = F.interpolate(ids[None, None].float(), size=(64, 64)).long()[0, 0]
    return {
        "image": torch.rand(3, 64, 64, generator=generator) * 255,
        "sem_seg": label,
        "seed": seed,
    }


def main(rank, world_size, init_file, output, broken=None):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo", f"file://{init_file}", rank=rank, world_size=world_size
        )
    step(rank, world_size, output, broken)
    if world_size > 1:
        gc.collect()  # free the reducer before the group, see recyclelora.engine.launch
        torch.distributed.destroy_process_group()


def step(rank, world_size, output, broken):
    model = build_segmentor(Patches(), **SMALL)
    if world_size > 1:
        model = DistributedDataParallel(model)
    share = BATCH // world_size
    samples = [sample(i) for i in range(rank * share, (rank + 1) * share)]
    if broken is not None:
        if rank == int(broken):
            samples[0]["image"] *= float("nan")
        try:
            model(samples)
        except FloatingPointError as error:
            torch.save(str(error), output)
        model([sample(i) for i in range(rank * share, (rank + 1) * share)])  # nobody waits
        return
    losses = model(samples)
    sum(losses.values()).backward()
    plain = getattr(model, "module", model)
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    torch.save({"losses": {k: v.detach() for k, v in losses.items()}, "grads": gradients}, output)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
