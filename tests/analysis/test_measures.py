"""Each measure equals a direct computation with whole matrices."""

import math

import pytest
import torch
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import adapted_layers
from recyclelora.adapters.movement import relative_movement
from recyclelora.analysis import (
    analyze_adapters,
    column_norms,
    effective_rank,
    product_singular_values,
    random_similarity,
    row_cosines,
    subspace_similarity,
    trained_pairs,
)
from recyclelora.analysis.measures import by_block
from recyclelora.analysis.similarity import mean_off_diagonal


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 24)) for _ in range(2)))
    return trained(adapt(net, r_main=5, r_sub=2))


def trained(net):
    for layer in adapted_layers(net).values():
        for name in layer.FACTORS:
            factor = getattr(layer, name)
            if factor is not None:
                factor.data += 0.3 * torch.randn_like(factor)
    return net


def test_effective_rank_equals_entropy_of_dense_product(model):
    for pair in trained_pairs(model):
        for factor in pair.factors.values():
            s = torch.linalg.svdvals(factor.B @ factor.A)
            p = s[s > 1e-12] / s.sum()
            expected = math.exp(-(p * p.log()).sum())
            values = product_singular_values(factor.B, factor.A)
            assert effective_rank(values) == pytest.approx(expected, rel=1e-9)


def test_effective_rank_of_zeros_is_zero():
    assert effective_rank(torch.zeros(3)) == 0


def test_column_norms_equal_loop_over_columns(model):
    pair = trained_pairs(model)[0]
    columns = pair.main.A.unbind(dim=1)
    pivots = set(pair.main.pivots.tolist())
    selected = [column.norm().item() for i, column in enumerate(columns) if i in pivots]
    rest = [column.norm().item() for i, column in enumerate(columns) if i not in pivots]
    found = column_norms(pair.main)
    assert found.selected == pytest.approx(sum(selected) / len(selected))
    assert found.rest == pytest.approx(sum(rest) / len(rest))
    assert found.ratio == pytest.approx(found.selected / found.rest)


def test_subspace_similarity_equals_trace_of_projections(model):
    pair = trained_pairs(model)[0]

    def projection(rows):
        return rows.T @ torch.linalg.inv(rows @ rows.T) @ rows

    product = projection(pair.main.A) @ projection(pair.sub.A)
    expected = product.trace().item() / min(pair.main.rank, pair.sub.rank)
    assert subspace_similarity(pair.main.A, pair.sub.A) == pytest.approx(expected, rel=1e-9)


def test_random_similarity_is_the_mean_over_random_subspaces():
    torch.manual_seed(0)
    draws = [
        subspace_similarity(torch.randn(5, 30).double(), torch.randn(2, 30).double())
        for _ in range(400)
    ]
    assert random_similarity(5, 2, 30) == pytest.approx(sum(draws) / len(draws), rel=0.05)


def test_cosines_of_parallel_opposite_and_zero_rows():
    cosines = row_cosines(torch.tensor([[1.0, 2.0], [-2.0, -4.0], [0.0, 0.0]]))
    assert torch.allclose(cosines, torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 0, 0]]))
    assert mean_off_diagonal(cosines) == pytest.approx(1 / 3)


def test_movement_equals_norm_of_dense_change(model):
    layer = adapted_layers(model)["0.1"]
    pair = next(pair for pair in trained_pairs(model) if pair.name == "0.1")
    w0 = layer.pretrained_weight().double()
    both = (layer.effective_weight().double() - w0).norm() / w0.norm()
    main = pair.main.B @ pair.main.A - pair.main.initial_B @ pair.main.initial_A
    moved = relative_movement(pair)
    assert moved["both"] == pytest.approx(both.item(), rel=1e-5)
    assert moved["main"] == pytest.approx(pair.scaling * (main.norm() / w0.norm()).item())


@pytest.mark.parametrize("init", ["rrqr", "svd", "kaiming"])
def test_untrained_adapters_have_not_moved(init):
    net = adapt(nn.Sequential(nn.Linear(24, 40)), r_main=5, r_sub=2, init=init)
    assert relative_movement(trained_pairs(net)[0])["both"] < 1e-12


def test_sparse_a_is_analyzed_as_dense(model):
    torch.manual_seed(0)
    net = trained(adapt(nn.Sequential(nn.Linear(24, 40)), r_main=5, r_sub=2, sparse_a=True))
    pair = trained_pairs(net)[0]
    assert pair.main.A.shape == (5, 24)
    w0 = net[0].pretrained_weight().double()
    both = (net[0].effective_weight().double() - w0).norm() / w0.norm()
    assert relative_movement(pair)["both"] == pytest.approx(both.item(), rel=1e-5)


def test_single_adapter_has_no_subspace_similarity():
    net = trained(adapt(nn.Sequential(nn.Linear(24, 40)), r_main=5, r_sub=0))
    layer = analyze_adapters(net)["layers"][0]
    assert "sub" not in layer and "subspace" not in layer and layer["main"]["rank"] == 5


def test_similarity_by_block_is_the_mean_of_its_layers(model):
    layers = analyze_adapters(model)["layers"]
    first = [layer["subspace"]["input"] for layer in layers if layer["name"].startswith("0.")]
    blocks = by_block(layers, "input")
    assert set(blocks) == {0, 1} and blocks[0] == pytest.approx(sum(first) / 2)


def test_model_without_adapters_is_refused():
    with pytest.raises(ValueError, match="got a model without adapters"):
        trained_pairs(nn.Linear(4, 4))
