"""A small network learns with both adapters, and the contributions of both can be separated."""

import copy

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import active, adapter_parameters, load_adapters, merged, save_adapters


def test_training_switching_saving_small_network(tmp_path):
    def base():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8))

    plain, model = base(), adapt(base(), r_main=5, r_sub=2)
    x = torch.randn(256, 16)
    target = plain(x).detach().roll(1, dims=1) + 0.5 * x[:, :8]
    main, sub = adapter_parameters(model)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(
        [{"params": main.values(), "lr": 2e-2}, {"params": sub.values(), "lr": 1e-2}],
        weight_decay=0.0,
    )

    def loss():
        return nn.functional.mse_loss(model(x), target)

    start = loss().item()
    for step in range(200):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if step % 50 == 0:
            with torch.no_grad(), merged(model):  # evaluation in between changes nothing
                loss()
    end = loss().item()
    assert end < 0.2 * start
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in frozen.items())

    with torch.no_grad():
        full = model(x)
        with merged(model):
            torch.testing.assert_close(model(x), full, atol=1e-5, rtol=1e-5)
        with active(model, main=False, sub=False):
            assert torch.equal(model(x), plain(x))
        alone = {}
        for name, switches in {"main": (True, False), "sub": (False, True)}.items():
            with active(model, *switches), merged(model):
                alone[name] = loss().item()
        # Each adapter has learned a part; main, with more ranks, has learned more.
        assert end < alone["main"] < start and end < alone["sub"]
        assert alone["main"] < alone["sub"]

        save_adapters(model, tmp_path / "adapters.pt")
        assert torch.equal(load_adapters(base(), tmp_path / "adapters.pt")(x), full)


@pytest.mark.slow
@pytest.mark.parametrize("sparse_a", [False, True])
def test_training_compiled_matches_eager(sparse_a):
    torch.manual_seed(4)
    plain = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 8))
    inputs = torch.randn(3, 50, 16)
    steps = {}
    for compiled in (False, True):
        model = adapt(copy.deepcopy(plain), r_main=4, r_sub=2, sparse_a=sparse_a)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1)
        forward = torch.compile(model, fullgraph=True) if compiled else model
        for x in inputs:
            optimizer.zero_grad()
            forward(x).square().mean().backward()
            optimizer.step()
        steps[compiled] = trained
    for mine, expected in zip(steps[True], steps[False], strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-5)
