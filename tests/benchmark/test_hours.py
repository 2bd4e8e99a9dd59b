"""The estimate of hours: counted operations compared with their known numbers."""

import pytest
import torch
import torch.nn.functional as F
from benchmark import hours

from recyclelora import adapt


def test_attention_counts_two_products_and_five_backward():
    shape = (2, 3, 40, 16)
    product = 2 * 2 * 3 * 40 * 40 * 16
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    with hours.counter() as counted:
        out = F.scaled_dot_product_attention(query, key, value)
    assert counted.get_total_flops() == 2 * product
    with hours.counter() as counted:
        out.sum().backward()
    assert counted.get_total_flops() == 5 * product


def test_flops_of_adapted_layer_match_the_formula():
    rows, into, out, rank = 50, 24, 16, 6
    model = adapt(torch.nn.Sequential(torch.nn.Linear(into, out)), r_main=4, r_sub=2)
    x = torch.randn(rows, into, requires_grad=True)
    with hours.counter() as counted:
        y = model(x)
    adapters = 2 * rows * rank * (into + out)
    assert counted.get_total_flops() == 2 * rows * into * out + adapters
    with hours.counter() as counted:
        y.sum().backward()
    assert counted.get_total_flops() == 2 * rows * into * out + 2 * adapters


def test_checkpointing_adds_one_forward_of_the_backbone():
    found = hours.count(hours.parse(["--backbone", "tiny", "--head", "tiny", "--crop", "128"]))
    dense, recomputed = found["dense"], found["dense, checkpointing"]
    assert dense["operations"] < recomputed["operations"] < 2 * dense["operations"]
    assert 1000 < dense["calls"] < recomputed["calls"] < 2 * dense["calls"]
    assert 0 < found["prediction"]["operations"] < dense["operations"] / 2


def test_windows_match_the_protocol():
    assert hours.windows(512, 512) == 1
    assert hours.windows(1024, 2048) == 3 * 6
    assert hours.windows(720, 1280) == 2 * 4


def test_hours_are_bounded_by_operations_and_calls():
    second = 38.7e12 / 4  # work per image, if the A6000 needs one second for a batch of four
    found = hours.hours(second, 0)
    assert found["RTX A6000"]["float32"] == pytest.approx([40_000 / 3600 / s for s in (0.6, 0.3)])
    found = hours.hours(0, 10_000)
    assert found["H100 SXM"]["bfloat16"] == pytest.approx([40_000 / 3600 * s for s in (0.05, 0.15)])
    found = hours.hours(second, 10_000)
    assert all(least < most for gpu in found.values() for least, most in gpu.values())


def test_evaluation_share_counts_all_windows():
    counted = {"dense": {"operations": 20}, "prediction": {"operations": 8}}
    windows = 500 * 18 + 1000 * 8 + 2000 * 12
    assert hours.evaluation_share(counted) == pytest.approx(windows * 8 / (160_000 * 20))
