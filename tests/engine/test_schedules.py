"""Schedules and AdamW trajectories of the published configuration (golden/schedules.npz)."""

import numpy as np
import pytest
import torch

from recyclelora.engine.schedules import Poly, PolyWithAnnealedDecay, cosine, poly


def optimizer_of(lrs, decays):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "weight_decay": wd}
        | {"initial_lr": lr, "initial_weight_decay": wd}
        for lr, wd in zip(lrs, decays, strict=True)
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, foreach=False)


def test_schedule_matches_golden_for_every_group(golden):
    reference = golden("schedules.npz")
    optimizer = optimizer_of(
        reference["initial_lr"].tolist(), reference["initial_weight_decay"].tolist()
    )
    schedule = PolyWithAnnealedDecay(iterations=40_000)
    for row, iteration in enumerate(reference["iterations"].tolist()):
        schedule(optimizer, iteration)
        lrs = [g["lr"] for g in optimizer.param_groups]
        decays = [g["weight_decay"] for g in optimizer.param_groups]
        np.testing.assert_allclose(lrs, reference["lr"][row], rtol=0, atol=1e-10)
        np.testing.assert_allclose(decays, reference["weight_decay"][row], rtol=0, atol=1e-10)


def test_schedule_matches_golden_at_every_iteration(golden):
    reference = golden("schedules.npz")
    optimizer = optimizer_of([1e-4, 1e-4], [0.05, 0.0])
    schedule = PolyWithAnnealedDecay(iterations=40_000)
    curves = np.empty((40_001, 3))
    for iteration in range(40_001):
        schedule(optimizer, iteration)
        decayed, undecayed = optimizer.param_groups
        curves[iteration] = (
            decayed["lr"],
            decayed["weight_decay"],
            undecayed["weight_decay"],
        )
    for column, name in enumerate(("dense_lr_base", "dense_wd_decay1", "dense_wd_decay0")):
        np.testing.assert_allclose(curves[:, column], reference[name], rtol=0, atol=1e-10)


def test_adamw_steps_match_published_trajectory(golden):
    reference = golden("schedules.npz")
    names = [k.removeprefix("traj0/grad/") for k in reference if k.startswith("traj0/grad/")]
    index = {str(name): i for i, name in enumerate(reference["group_names"])}
    lrs = [float(reference["initial_lr"][index[name]]) for name in names]
    decays = [float(reference["initial_weight_decay"][index[name]]) for name in names]
    optimizer = optimizer_of(lrs, decays)
    for group, name in zip(optimizer.param_groups, names, strict=True):
        start = torch.from_numpy(np.array(reference[f"traj0/param/{name}"][0]))
        group["params"][0].data = start
    schedule = PolyWithAnnealedDecay(iterations=40_000)
    for step in range(6):
        schedule(optimizer, step)
        for group, name in zip(optimizer.param_groups, names, strict=True):
            grad = torch.from_numpy(np.array(reference[f"traj0/grad/{name}"][step]))
            # The mask token is listed as trainable but gets no gradient, so AdamW skips it.
            group["params"][0].grad = grad if grad.any() else None
        optimizer.step()
        for group, name in zip(optimizer.param_groups, names, strict=True):
            np.testing.assert_allclose(
                group["params"][0].detach().numpy(),
                reference[f"traj0/param/{name}"][step + 1],
                rtol=0,
                atol=1e-7,
                err_msg=f"{name} after step {step + 1}",
            )


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_schedule_of_short_runs_stays_in_range(iterations):
    for iteration in range(iterations + 2):
        assert 0.0 <= poly(iteration, iterations=iterations) <= 1.0
        assert 0.0 <= cosine(iteration, iterations=iterations) <= 1.0


def test_schedule_without_iterations_raises():
    with pytest.raises(ValueError, match="iterations must be a whole number from 1"):
        PolyWithAnnealedDecay(iterations=0)


def test_poly_keeps_weight_decay():
    optimizer = optimizer_of([1e-4, 5e-5], [0.05, 0.0])
    Poly(iterations=11, power=1.0)(optimizer, 5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([5e-5, 2.5e-5])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.05, 0.0]


def test_poly_with_warmup_increases_then_decreases():
    factors = [poly(t, iterations=12, power=1.0, warmup=4) for t in range(12)]
    assert factors[:4] == pytest.approx([0.01, 0.34, 0.67, 1.0])
    assert factors[4:] == [poly(t, iterations=8, power=1.0) for t in range(8)]
    assert poly(0, iterations=3, warmup=1) == 0.01
    assert all(0 <= poly(t, iterations=3, warmup=9) <= 1 for t in range(12))
