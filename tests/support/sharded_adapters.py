"""One of two processes that save and load adapters of distributed models: RANK FOLDER."""

import copy
import gc
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from recyclelora import adapt
from recyclelora.adapters import load_adapters, save_adapters

from .trained_adapters import learn


def base():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(16, 16), nn.GELU())
    return nn.Sequential(inner, nn.Linear(16, 24), nn.Linear(24, 5))


def trained(**settings):
    """Return the base with adapters that differ from their initial values."""
    model = adapt(base(), **{"r_main": 2, "r_sub": 1, **settings})
    learn(model)
    return model


def fsdp2(model):
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp1(model):
    cpu = torch.device("cpu")
    return FullyShardedDataParallel(model, use_orig_params=True, device_id=cpu)


WRAPPERS = {"DDP": DistributedDataParallel, "FSDP1": fsdp1, "FSDP2": fsdp2}


BATCH = torch.linspace(-1, 1, 8 * 16).sin().view(8, 16)


def train(model, batch):
    """Train two steps; the gradient is the mean over the processes."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()


def drop_copies(model):
    """Leave only this process's part of the parameters."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def main(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    model, x = trained(), torch.ones(2, 16)
    for kind, wrap in WRAPPERS.items():
        wrapped, path = wrap(copy.deepcopy(model)), folder / f"{kind}.safetensors"
        try:
            save_adapters(wrapped, folder / "missing" / path.name)
        except FileNotFoundError as error:
            (folder / f"{kind}{rank}.txt").write_text(str(error))
        save_adapters(wrapped, path)
        torch.distributed.barrier()
        other = wrap(adapt(base(), r_main=2, r_sub=1))
        with torch.no_grad():
            other(x)  # afterwards fully_shard has whole copies of some parameters
        load_adapters(other, path)
        drop_copies(other)
        with torch.no_grad():
            torch.save(other(x), folder / f"{kind}{rank}.pt")
        drop_copies(other)
        train(other, BATCH.chunk(2)[rank])
        save_adapters(other, folder / f"{kind}_trained.safetensors")
        if kind == "FSDP1":
            try:
                save_adapters(wrapped.module, folder / "part.safetensors")
            except ValueError as error:
                (folder / f"part{rank}.txt").write_text(str(error))
    # A model of this process only, which writes its own file.
    save_adapters(model, folder / f"own{rank}.safetensors")
    del wrapped, other
    gc.collect()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
