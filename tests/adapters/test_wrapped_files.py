"""Adapter files of models inside torch.compile, DataParallel, DDP and FSDP."""

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from recyclelora import adapt
from recyclelora.adapters import (
    activate_pair,
    adapted_layers,
    adapter_parameters,
    add_pair,
    load_adapters,
    pair_names,
    save_adapters,
)

from ..support.adapter_files import read_header_and_tensors
from ..support.sharded_adapters import BATCH, base, train, trained
from ..support.trained_adapters import learn


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled(model):
    return torch.compile(model, backend="eager")


def inside(wrap):
    """A model in which a linear layer and a block are wrapped, but not the whole model."""

    def wrap_parts(model):
        model[0], model[1] = wrap(model[0]), wrap(model[1])
        return model

    return wrap_parts


def fsdp1(model):
    cpu = torch.device("cpu")
    return FullyShardedDataParallel(model, use_orig_params=True, device_id=cpu)


def fsdp2(model):
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model[0], mesh=mesh)
    return fully_shard(model, mesh=mesh)


LOCAL = {
    "compile": compiled,
    "DataParallel": nn.DataParallel,
    "EMA": AveragedModel,
    "DataParallel of compile": lambda model: nn.DataParallel(compiled(model)),
    "parts in compile": inside(compiled),
    "parts in checkpoint": inside(checkpoint_wrapper),
    "all in all": lambda model: nn.DataParallel(compiled(inside(compiled)(model))),
}
GROUPED = {
    "DDP": DistributedDataParallel,
    "compile of DDP": lambda model: compiled(DistributedDataParallel(model)),
    "DDP of compiled parts": lambda model: DistributedDataParallel(inside(compiled)(model)),
    "FSDP1": fsdp1,
    "parts in FSDP1": inside(fsdp1),
    "FSDP1 of FSDP1": lambda model: fsdp1(inside(fsdp1)(model)),
    "FSDP2": fsdp2,
    "compile of FSDP2": lambda model: compiled(fsdp2(model)),
}


def check_wrapped(wrap, folder):
    model, x = trained(), torch.randn(4, 16)
    with torch.no_grad():
        expected = model(x)
    path, plain_path = folder / "wrapped.safetensors", folder / "plain.safetensors"
    save_adapters(model, plain_path)
    wrapped = wrap(copy.deepcopy(model))
    save_adapters(wrapped, path)
    assert path.read_bytes() == plain_path.read_bytes()
    with torch.no_grad():
        assert torch.equal(load_adapters(base(), path)(x), expected)
        other = wrap(adapt(base(), r_main=2, r_sub=1))
        assert not torch.equal(other(x), expected)
        assert load_adapters(other, path) is other
        torch.testing.assert_close(other(x), expected)
    save_adapters(other, path)
    assert path.read_bytes() == plain_path.read_bytes()


@pytest.mark.parametrize("kind", LOCAL)
def test_wrapped_model_saves_and_loads_plain_names(kind, tmp_path):
    check_wrapped(LOCAL[kind], tmp_path)
    save_adapters(trained(), tmp_path / "a.safetensors")
    x = torch.randn(4, 16)
    with torch.no_grad():
        model = LOCAL[kind](base())
        model(x)
        assert torch.equal(load_adapters(model, tmp_path / "a.safetensors")(x), trained()(x))


@pytest.mark.parametrize("kind", GROUPED)
def test_distributed_model_saves_and_loads_plain_names(kind, tmp_path, process_group):
    check_wrapped(GROUPED[kind], tmp_path)


def test_compiled_linear_is_compiled_anew_when_adapted():
    linear = compiled(nn.Linear(16, 16))
    model, x = nn.Sequential(linear), torch.randn(2, 16)
    model(x)
    adapt(model, 2, 1)
    learn(model)
    assert torch.equal(model(x), linear._orig_mod(x))


@pytest.mark.parametrize("kind", ["FSDP1", "FSDP2"])
def test_sharded_model_other_pair_and_other_tensors(kind, tmp_path, process_group):
    model, path, x = trained(exclude="2"), tmp_path / "a.safetensors", torch.randn(4, 16)
    model[2].weight.data.add_(1)
    expected = model(x).detach()
    save_adapters(GROUPED[kind](copy.deepcopy(model)), path, also="2", initial_factors=False)
    other = GROUPED[kind](adapt(base(), 2, 1, exclude="2"))
    before = other(x).detach()
    load_adapters(other, path, name="night")
    with torch.no_grad():
        torch.testing.assert_close(other(x), expected)
        add_pair(other, "dusk", 2, 1)
        for name in ("default", "dusk"):
            activate_pair(other, name)
            torch.testing.assert_close(other(x), plus_one(x, before))
        activate_pair(other, "night")
        torch.testing.assert_close(other(x), expected)
    assert pair_names(other) == ("night", ["default", "dusk", "night"])
    other(x).sum().backward()
    assert all(p.grad is not None for p in adapter_parameters(other).main.values())


def plus_one(x, before):
    """Return the outputs ``before``, with 1 added to the weight of the last layer."""
    plain = base()
    return before + plain[1](plain[0](x)).sum(1, keepdim=True)


@pytest.mark.parametrize("kind", ["DDP", "FSDP1", "FSDP2"])
def test_distributed_model_other_settings_raises(kind, tmp_path, process_group):
    save_adapters(trained(r_main=3), tmp_path / "a.safetensors")
    model, x = GROUPED[kind](adapt(base(), r_main=2, r_sub=1)), torch.randn(4, 16)
    before = model(x).detach()
    for name in ("default", "night"):
        with pytest.raises(RuntimeError, match="load the pair before wrapping the model"):
            load_adapters(model, tmp_path / "a.safetensors", name=name)
        assert torch.equal(model(x), before) and pair_names(model) == ("default", ["default"])


@pytest.mark.parametrize("kind", ["FSDP1", "FSDP2"])
def test_sharded_plain_base_raises(kind, tmp_path, process_group):
    save_adapters(trained(), tmp_path / "a.safetensors")
    model = GROUPED[kind](base())
    with pytest.raises(RuntimeError, match="load them before wrapping the model"):
        load_adapters(model, tmp_path / "a.safetensors")
    assert not adapted_layers(model)


def test_plain_base_in_ddp_loads_with_warning(tmp_path, process_group):
    save_adapters(trained(), tmp_path / "a.safetensors")
    model, x = DistributedDataParallel(base()), torch.randn(4, 16)
    with pytest.warns(UserWarning, match="wrap the model again before training") as warned:
        load_adapters(model, tmp_path / "a.safetensors")
    assert warned[0].filename == __file__
    with torch.no_grad():
        assert torch.equal(model(x), trained()(x))


def test_deleted_ddp_wrapper_does_not_count(tmp_path, process_group):
    save_adapters(trained(r_main=3), tmp_path / "a.safetensors")
    model = adapt(base(), r_main=2, r_sub=1)
    wrapper = DistributedDataParallel(model)
    wrapper.itself = [wrapper]  # a cycle that only the garbage collector can free
    del wrapper
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_adapters(model, tmp_path / "a.safetensors")
    assert ["create new optimisers" in str(warning.message) for warning in caught] == [True]


@pytest.mark.slow
def test_two_processes_save_and_load_as_one(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.support.sharded_adapters"]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=root, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=300)[1].decode() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
    model = trained()
    save_adapters(model, tmp_path / "one.safetensors")
    one, expected = (tmp_path / "one.safetensors").read_bytes(), model(torch.ones(2, 16))
    train(model, BATCH)
    save_adapters(model, tmp_path / "one.safetensors")
    _, alone = read_header_and_tensors(tmp_path / "one.safetensors")
    for kind in ("DDP", "FSDP1", "FSDP2"):
        assert (tmp_path / f"{kind}.safetensors").read_bytes() == one
        _, together = read_header_and_tensors(tmp_path / f"{kind}_trained.safetensors")
        torch.testing.assert_close(together, alone)
        for rank in range(2):
            output = torch.load(tmp_path / f"{kind}{rank}.pt", weights_only=True)
            torch.testing.assert_close(output, expected.detach())
            error = (tmp_path / f"{kind}{rank}.txt").read_text()
            assert "there is no folder" in error
    for rank in range(2):
        assert "pass the whole model that FSDP wraps" in (tmp_path / f"part{rank}.txt").read_text()
    for rank in range(2):
        header, _ = read_header_and_tensors(tmp_path / f"own{rank}.safetensors")
        assert header["layers"].keys() == {"0.0", "1", "2"}
