import pytest
import torch

from recyclelora.mask2former import MSDeformAttn, ms_deform_attn

SHAPES = [(4, 6), (2, 3)]


def inputs(n=2, q=5, heads=2, d=3, points=4):
    s = sum(h * w for h, w in SHAPES)
    value = torch.randn(n, s, heads, d, dtype=torch.float64)
    locations = torch.rand(n, q, heads, len(SHAPES), points, 2, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(n, q, heads, len(SHAPES), points, dtype=torch.float64)
    return value, locations, weights


def bilinear(level, x, y):
    """Return the values of a level (H, W, d) at pixel coordinates, zero outside."""
    h, w, _ = level.shape
    x0, y0 = int(x // 1), int(y // 1)
    out = torch.zeros_like(level[0, 0])
    for i, j in ((x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)):
        if 0 <= i < w and 0 <= j < h:
            out = out + level[j, i] * (1 - abs(x - i)) * (1 - abs(y - j))
    return out


def test_ms_deform_attn_equals_the_definition():
    value, locations, weights = inputs()
    n, q, heads, levels, points, _ = locations.shape
    out = ms_deform_attn(value, SHAPES, locations, weights).view(n, q, heads, -1)
    starts = [0, 24]
    for b, i, m in torch.cartesian_prod(*map(torch.arange, (n, q, heads))).tolist():
        expected = 0
        for level in range(levels):
            h, w = SHAPES[level]
            start = starts[level]
            grid = value[b, start : start + h * w, m].view(h, w, -1)
            for p in range(points):
                x, y = locations[b, i, m, level, p].tolist()
                sample = bilinear(grid, x * w - 0.5, y * h - 0.5)
                expected = expected + weights[b, i, m, level, p] * sample
        torch.testing.assert_close(out[b, i, m], expected)


def test_ms_deform_attn_gradients_pass_gradcheck():
    tensors = [t.requires_grad_() for t in inputs(n=1, q=2, points=2)]
    assert torch.autograd.gradcheck(lambda v, x, w: ms_deform_attn(v, SHAPES, x, w), tensors)


def test_mismatched_shapes_raise():
    value, locations, weights = inputs()
    with pytest.raises(ValueError, match="need 28 positions"):
        ms_deform_attn(value, [(4, 6), (2, 2)], locations, weights)
    with pytest.raises(ValueError, match="multiple of n_heads"):
        MSDeformAttn(d_model=30, n_heads=8)


def test_initial_offsets_spread_over_directions():
    attention = MSDeformAttn(d_model=32, n_levels=3, n_heads=8, n_points=4)
    offsets = attention.sampling_offsets.bias.view(8, 3, 4, 2)
    reach = offsets.abs().amax(dim=-1)
    torch.testing.assert_close(reach, torch.arange(1.0, 5.0).expand(8, 3, 4))
    assert len({tuple(x) for x in offsets[:, 0, 0].round(decimals=3).tolist()}) == 8
