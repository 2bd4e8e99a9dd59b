"""Train adapted models on one or two gloo processes: RANK WORLD FOLDER.

One process trains plain models, two train with DDP and with FSDP2, each on its half of every batch.
All of them save the adapters, load them, activate another pair, and try changes that would replace
parameters. Process R writes what it saw to ``FOLDER/seen_WORLD_R.pt``.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
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
RANKS = {"both": (4, 2), "main alone": (4, 0)}
KINDS = {1: ["plain"], 2: ["DDP", "FSDP2"]}


def base() -> nn.Module:
    """Return the pretrained model, which is the same in every process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))


def wrap(model: nn.Module, kind: str) -> nn.Module:
    """Return the model in the form of this kind of training."""
    if kind == "DDP":
        return DistributedDataParallel(model)
    if kind == "FSDP2":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def train(model: nn.Module, x: Tensor) -> None:
    """Train some steps to reverse the input; the mean over processes is the mean over the batch."""
    main, sub = adapter_parameters(model)
    optimizer = torch.optim.AdamW([*main.values(), *sub.values()], lr=1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(x) - x.flip(1)).square().mean().backward()
        optimizer.step()


def error_of(change: Callable[[], object]) -> str:
    """Return the message of the RuntimeError that a call raises."""
    try:
        change()
    except RuntimeError as error:
        return str(error)
    return ""


def run(kind: str, ranks: tuple[int, int], folder: Path) -> dict[str, Tensor | str]:
    """Return the results of one kind of training by the name of the step."""
    torch.manual_seed(1)
    batch = torch.randn(ROWS, 16)
    x = batch.chunk(dist.get_world_size())[dist.get_rank()]
    file = folder / f"{kind}_{ranks[1]}.safetensors"
    other = folder / f"{kind}_{ranks[1]}_other_{dist.get_rank()}.safetensors"
    save_adapters(adapt(base(), 3, 1), other)
    model = adapt(base(), *ranks)
    add_pair(model, "night", *ranks)
    add_pair(model, "rain", 2, 1)
    wrapped, fresh = wrap(model, kind), wrap(adapt(base(), *ranks), kind)
    train(wrapped, x)
    save_adapters(wrapped, file)
    dist.barrier()
    seen = {"trained": wrapped(batch), "loaded": load_adapters(fresh, file)(batch)}
    if kind != "plain":
        seen["pair"] = error_of(lambda: activate_pair(wrapped, "rain"))
        seen["file"] = error_of(lambda: load_adapters(fresh, other))
        seen["kept"] = wrapped(batch)
    activate_pair(wrapped, "night")
    train(wrapped, 2 * x)  # other data than for the first pair
    seen["night"] = wrapped(batch)
    return {
        key: value.detach() if isinstance(value, Tensor) else value for key, value in seen.items()
    }


def main(rank: int, world: int, folder: Path) -> None:
    """Run every kind of training with this number of processes."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store_{world}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    seen = {
        (kind, name): run(kind, ranks, folder)
        for kind in KINDS[world]
        for name, ranks in RANKS.items()
    }
    torch.save(seen, folder / f"seen_{world}_{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
