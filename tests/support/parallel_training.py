"""Train one adapted model on one or two gloo processes: KIND RANK WORLD STORE OUTPUT.

Each process trains on its slice of a batch, under no wrapper, DDP or FSDP2, saves the adapters,
loads them again into a wrapped model, and writes what it saw to ``OUTPUT.RANK``.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from recyclelora import adapt
from recyclelora.adapters import (
    activate_pair,
    adapter_parameters,
    add_pair,
    load_adapters,
    save_adapters,
)

STEPS, ROWS = 4, 8


def base() -> nn.Module:
    """The pretrained model, the same in every process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))


def wrap(model: nn.Module, kind: str) -> nn.Module:
    """The model as this kind of training holds it."""
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "fsdp":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model:
            if any(True for _ in layer.parameters()):
                fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    return model


def train(model: nn.Module, x: torch.Tensor) -> None:
    """Some steps, whose gradient is that of the whole batch."""
    main, sub = adapter_parameters(model)
    optimizer = torch.optim.AdamW([*main.values(), *sub.values()], lr=1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(x) - x.flip(1)).square().mean().backward()
        optimizer.step()


def refusal(change) -> str:  # type: ignore[no-untyped-def]
    """The error that a change raises, or nothing."""
    try:
        change()
    except RuntimeError as error:
        return str(error)
    return ""


def main(kind: str, rank: int, world: int, store: str, output: str) -> None:
    """Train, save, load, and try what has to be refused."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(1)
    batch = torch.randn(ROWS, 16)
    x = batch[rank * ROWS // world : (rank + 1) * ROWS // world]
    r_sub = 0 if "main" in kind else 2
    model = adapt(base(), 4, r_sub)
    other = Path(f"{output}.other.{rank}.safetensors")
    save_adapters(adapt(base(), 3, 1), other)
    add_pair(model, "night", 4, r_sub)
    add_pair(model, "rain", 2, 1)
    wrapped = wrap(model, kind.partition("-")[0])
    train(wrapped, x)
    file = Path(f"{output}.safetensors")
    save_adapters(wrapped, file)
    dist.barrier()
    found = {"trained": wrapped(batch).detach()}
    fresh = wrap(adapt(base(), 4, r_sub), kind.partition("-")[0])
    found["loaded"] = load_adapters(fresh, file)(batch).detach()
    found["refused pair"] = refusal(lambda: activate_pair(wrapped, "rain"))
    found["refused file"] = refusal(lambda: load_adapters(fresh, other))
    found["kept"] = wrapped(batch).detach()
    activate_pair(wrapped, "night")
    train(wrapped, x)
    found["night"] = wrapped(batch).detach()
    torch.save(found, f"{output}.{rank}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    kind, rank, world, *rest = sys.argv[1:]
    main(kind, int(rank), int(world), *rest)
