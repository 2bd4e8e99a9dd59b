import pytest
import torch

from recyclelora.ops import ms_deform_attn, reference
from recyclelora.ops.library import load

SHAPES = [(1, 2), (5, 3), (8, 7)]
compiled = pytest.mark.skipif(not load(), reason="there is no compiled operator")


def make(dtype=torch.float64, n=2, q=11, heads=3, d=5, points=4):
    """Return value, locations (some outside the maps) and weights, not contiguous in memory."""
    s = sum(h * w for h, w in SHAPES)
    value = torch.randn(n, heads, s, d, dtype=dtype).transpose(1, 2)
    locations = torch.rand(n, heads, q, len(SHAPES), points, 2, dtype=dtype).transpose(1, 2) * 2
    weights = torch.rand(n, heads, q, len(SHAPES), points, dtype=dtype).transpose(1, 2)
    return value.requires_grad_(), (locations - 0.5).requires_grad_(), weights.requires_grad_()


def with_gradients(function, tensors, weighting):
    value, locations, weights = tensors
    out = function(value, SHAPES, locations, weights)
    return out, *torch.autograd.grad(out, tensors, weighting)


def operator(value, locations, weights, sides=None):
    sides = [side for shape in SHAPES for side in shape] if sides is None else sides
    return torch.ops.recyclelora.ms_deform_attn(value, sides, locations, weights)


@pytest.mark.parametrize("d", [1, 5, 16, 32])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_value_and_gradients_equal_the_reference(dtype, tolerance, d):
    tensors = make(dtype, d=d)
    weighting = torch.randn(2, 11, 3 * d, dtype=dtype)
    found = with_gradients(ms_deform_attn, tensors, weighting)
    expected = with_gradients(reference.ms_deform_attn, tensors, weighting)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == dtype
        scale = max(1, float(theirs.detach().abs().max()))
        torch.testing.assert_close(mine, theirs, atol=tolerance * scale, rtol=0)


@compiled
def test_operator_passes_opcheck():
    value, locations, weights = make(n=1, q=3)
    sides = [side for shape in SHAPES for side in shape]
    operators = torch.ops.recyclelora
    torch.library.opcheck(operators.ms_deform_attn, (value, sides, locations, weights))
    grad = torch.randn(1, 3, 15, dtype=torch.float64)
    arguments = (grad, value.detach(), sides, locations.detach(), weights.detach())
    torch.library.opcheck(operators.ms_deform_attn_backward, arguments)


@compiled
def test_second_derivative_raises():
    value, locations, weights = make()
    out = ms_deform_attn(value, SHAPES, locations, weights)
    (grad,) = torch.autograd.grad(out.square().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="expected a gradient of first order"):
        grad.sum().backward()


def test_compiled_program_of_any_size_equals_eager():
    def attend(value, sides, locations, weights):
        h, w = sides.shape
        return ms_deform_attn(value, [(h, w)], locations, weights)

    program = torch.compile(attend, backend="eager", dynamic=True, fullgraph=True)
    for h, w in ((3, 4), (6, 5)):
        value, sides = torch.randn(1, h * w, 2, 4), torch.empty(h, w)
        where, weights = torch.rand(1, 7, 2, 1, 3, 2), torch.rand(1, 7, 2, 1, 3)
        found = program(value, sides, where, weights)
        assert torch.equal(found, attend(value, sides, where, weights))


def test_exported_program_has_operators_of_pytorch_only():
    class Attention(torch.nn.Module):
        def forward(self, value, locations, weights):
            return ms_deform_attn(value, SHAPES, locations, weights)

    tensors = tuple(x.detach() for x in make(torch.float32))
    program = torch.export.export(Attention(), tensors)
    assert not any("recyclelora" in str(node.target) for node in program.graph.nodes)
    assert torch.allclose(program.module()(*tensors), Attention()(*tensors), atol=1e-5)


@compiled
def test_bits_do_not_depend_on_threads():
    tensors, weighting = make(torch.float32, q=300), torch.randn(2, 300, 15)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(with_gradients(ms_deform_attn, tensors, weighting))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_nan_location_gives_nan():
    value, locations, weights = (x.detach().clone() for x in make())
    locations[1, 2, 0, 1, 3, 0] = float("nan")
    out = ms_deform_attn(value, SHAPES, locations, weights).view(2, 11, 3, -1)
    assert out[1, 2, 0].isnan().all()
    assert int(out.isnan().sum()) == out.shape[-1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_float32(dtype):
    value, locations, weights = (x.detach() for x in make(torch.float32))
    expected = ms_deform_attn(value.to(dtype).float(), SHAPES, locations, weights)
    half = (value.to(dtype), SHAPES, locations.to(dtype), weights.to(dtype))
    found = ms_deform_attn(*half)
    assert found.dtype == dtype
    assert float((found.float() - expected).norm() / expected.norm()) < 0.1


@compiled
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, x, w: (v[0], x, w), "expected value"),
        (lambda v, x, w: (v[:1], x, w), "do not fit"),
        (lambda v, x, w: (v[:, :-1], x, w), "73 positions, value has 72"),
        (lambda v, x, w: (v, x[..., :1], w), "do not fit"),
        (lambda v, x, w: (v, x, w[:, :-1]), "do not fit"),
        (lambda v, x, w: (v, x, w, [1, 2, 5, 3, 8]), "do not fit"),
        (lambda v, x, w: (v, x, w, [-1, -2, 5, 3, 8, 7]), "positive sides"),
        (lambda v, x, w: (v, x.float(), w), "all in float64"),
    ],
)
def test_operator_rejects_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        operator(*change(*make()))
