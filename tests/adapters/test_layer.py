import copy
import io
import pickle

import pytest
import torch
from torch import nn

from recyclelora import DualLoRALinear, rrqr
from recyclelora.adapters import active

INITS = [("rrqr", False), ("rrqr", True), ("svd", False), ("kaiming", False)]
SHAPES = [(48, 32), (32, 48), (32, 32)]


def make(out=48, inn=32, r_main=9, r_sub=3, dtype=torch.float32, bias=True, **settings):
    linear = nn.Linear(inn, out, bias=bias, dtype=dtype)
    return linear, DualLoRALinear.from_linear(linear, r_main, r_sub, **settings)


def perturb(layer, scale=0.3):
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "lora_" in name and parameter.requires_grad:
                parameter.add_(scale * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize(("init", "sparse_a"), INITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_from_linear_output_equals_linear(shape, init, sparse_a):
    linear, layer = make(*shape, init=init, sparse_a=sparse_a)
    x = torch.randn(2, 7, shape[1])
    torch.testing.assert_close(layer(x), linear(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.effective_weight(), linear.weight, atol=1e-6, rtol=0)
    assert torch.equal(layer.pretrained_weight(), linear.weight)
    assert not layer.residual.requires_grad and layer.bias.requires_grad
    assert torch.equal(layer.bias, linear.bias)


@pytest.mark.parametrize("shape", SHAPES)
def test_rrqr_factors_match_decomposition(shape):
    linear, layer = make(*shape)
    perm, q_major, q_minor, _ = rrqr(linear.weight.detach(), 3, 9)
    m = min(shape)
    assert layer.lora_A_main.argmax(1).tolist() == perm[m - 9 : m].tolist()
    assert layer.lora_A_sub.argmax(1).tolist() == perm[:3].tolist()
    for A in (layer.lora_A_main, layer.lora_A_sub):
        assert A.sum() == len(A) and ((A == 0) | (A == 1)).all()
    assert torch.equal(layer.lora_B_main, q_minor) and torch.equal(layer.lora_B_sub, q_major)
    assert layer.scaling == 1 / 12
    # Only the pivot columns differ from W0.
    same = (layer.residual == linear.weight).all(0)
    assert sorted((~same).nonzero().flatten().tolist()) == sorted(layer.columns.tolist())


@pytest.mark.parametrize("shape", SHAPES)
def test_svd_factors_equal_singular_part(shape):
    linear, layer = make(*shape, init="svd", alpha=3.0)
    u, s, vt = torch.linalg.svd(linear.weight.detach().double(), full_matrices=False)
    minor = (u[:, -9:] * s[-9:]) @ vt[-9:]
    major = (u[:, :3] * s[:3]) @ vt[:3]
    main = layer.scaling * layer.lora_B_main @ layer.lora_A_main
    sub = layer.scaling * layer.lora_B_sub @ layer.lora_A_sub
    torch.testing.assert_close(main.double(), minor, atol=1e-6, rtol=0)
    torch.testing.assert_close(sub.double(), major, atol=1e-6, rtol=0)


def test_kaiming_factors_zero_B_and_bounded_A():
    linear, layer = make(init="kaiming")
    assert torch.equal(layer.residual, linear.weight)
    assert not layer.lora_B_main.any() and not layer.lora_B_sub.any()
    bound = (1 / 32) ** 0.5  # kaiming_uniform with a = sqrt(5)
    for A in (layer.lora_A_main, layer.lora_A_sub):
        assert bound / 2 < A.abs().max() <= bound


@pytest.mark.parametrize(("init", "sparse_a"), INITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_merge_exact_and_unmerge_restores(dtype, init, sparse_a):
    _, layer = make(dtype=dtype, init=init, sparse_a=sparse_a)
    perturb(layer)
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(5, 32, dtype=dtype)
    unmerged = layer(x).detach()
    for _ in range(1000):
        layer.merge()
        layer.unmerge()
    after = layer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(layer(x), unmerged)
    layer.merge()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}.get(dtype, 4e-2)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), unmerged, atol=tolerance, rtol=0)
    # The product is computed in float32 or higher precision and cast once.
    dense = layer.to_dense()
    product = dense.lora_B_main.double() @ dense.lora_A_main.double()
    product += dense.lora_B_sub.double() @ dense.lora_A_sub.double()
    expected = (layer.residual.double() + layer.scaling * product).to(dtype)
    torch.testing.assert_close(layer.merged_weight, expected, atol=1e-7, rtol=0)


def test_train_eval_keep_state_dict():
    _, layer = make()
    perturb(layer)
    before = copy.deepcopy(layer.state_dict())
    assert layer.eval() is layer and layer.train() is layer
    layer.merge()
    layer.train().eval()
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


@pytest.mark.parametrize(("init", "sparse_a"), INITS)
def test_active_switches_match_formula(init, sparse_a):
    linear, layer = make(init=init, sparse_a=sparse_a)
    initial = layer.to_dense()
    perturb(layer)
    now, x = layer.to_dense(), torch.randn(4, 32)
    with active(layer, main=False, sub=False):
        assert torch.equal(layer(x), linear(x))
        assert torch.equal(layer.effective_weight(), linear.weight)

    def weight(main, sub):
        return layer.residual + layer.scaling * (
            main.lora_B_main @ main.lora_A_main + sub.lora_B_sub @ sub.lora_A_sub
        )

    for main_on, sub_on in [(True, False), (False, True), (True, True)]:
        expected = weight(now if main_on else initial, now if sub_on else initial)
        with active(layer, main=main_on, sub=sub_on):
            out = layer(x)
            torch.testing.assert_close(
                out, nn.functional.linear(x, expected, layer.bias), atol=1e-5, rtol=0
            )
            layer.merge()
            with torch.no_grad():
                torch.testing.assert_close(layer(x), out, atol=1e-5, rtol=0)
            layer.unmerge()
    assert layer.switches() == (True, True)


def test_active_sub_off_no_sub_gradient():
    _, layer = make()
    with active(layer, main=True, sub=False):
        layer(torch.randn(3, 32)).sum().backward()
    assert layer.lora_A_main.grad.any() and layer.lora_B_main.grad.any()
    assert layer.lora_A_sub.grad is None and layer.lora_B_sub.grad is None


def test_active_while_merged_updates_merged_weight():
    linear, layer = make()
    perturb(layer).merge()
    x = torch.randn(4, 32)
    with torch.no_grad(), active(layer, main=False, sub=False):
        assert torch.equal(layer(x), linear(x))
    assert layer.merged_weight is not None and not torch.equal(layer.merged_weight, linear.weight)


@pytest.mark.parametrize(("r_main", "r_sub"), [(0, 4), (5, 0), (0, 0), (29, 3)])
@pytest.mark.parametrize(("init", "sparse_a"), INITS)
def test_forward_any_ranks_matches_linear(r_main, r_sub, init, sparse_a):
    linear, layer = make(r_main=r_main, r_sub=r_sub, init=init, sparse_a=sparse_a)
    width = r_main + r_sub if sparse_a else 32
    for rank, kind in ((r_main, "main"), (r_sub, "sub")):
        A, B = getattr(layer, f"lora_A_{kind}"), getattr(layer, f"lora_B_{kind}")
        if rank == 0:
            assert A is None and B is None
        else:
            assert A.shape == (rank, width) and B.shape == (48, rank)
    x = torch.randn(2, 32)
    torch.testing.assert_close(layer(x), linear(x), atol=1e-5, rtol=0)
    perturb(layer)
    unmerged = layer(x)
    layer.merge()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), unmerged, atol=1e-5, rtol=0)
    layer.unmerge()
    with active(layer, main=False, sub=False):
        assert torch.equal(layer(x), linear(x))
    unmerged.sum().backward()
    if r_main + r_sub:
        assert all(p.grad is not None for n, p in layer.named_parameters() if "lora" in n)


@pytest.mark.parametrize("shape", [(32,), (0, 32), (3, 32), (2, 0, 5, 32)])
def test_forward_any_input_shape_matches_linear(shape):
    linear, layer = make()
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x), linear(x), atol=1e-5, rtol=0)


def test_to_dense_of_sparse_same_function():
    linear = nn.Linear(32, 48)
    sparse = DualLoRALinear.from_linear(linear, 9, 3, sparse_a=True)
    dense = DualLoRALinear.from_linear(linear, 9, 3)
    assert sparse.columns.shape == (12,) and torch.equal(sparse.columns, dense.columns)
    for name, parameter in sparse.to_dense().named_parameters():
        assert torch.equal(parameter, dict(dense.named_parameters())[name]), name
    perturb(sparse)
    x = torch.randn(3, 32)
    torch.testing.assert_close(sparse(x), sparse.to_dense()(x), atol=1e-5, rtol=0)
    assert sparse.lora_A_main.shape == (9, 12)  # to_dense made a copy


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("init", ["rrqr", "svd", "kaiming"])
def test_from_linear_half_precision_matches_linear(dtype, init):
    linear, layer = make(dtype=dtype, init=init)
    assert layer.residual.dtype == layer.bias.dtype == dtype
    factors = [p for name, p in layer.named_parameters() if "lora_" in name]
    assert len(factors) == 4 and all(p.dtype == torch.float32 for p in factors)
    x = torch.randn(3, 32, dtype=dtype)
    torch.testing.assert_close(layer(x), linear(x), atol=2e-2, rtol=0)
    assert torch.equal(layer.pretrained_weight(), linear.weight)
    with active(layer, main=False, sub=False):
        assert torch.equal(layer(x), linear(x))


@pytest.mark.parametrize("merge_saved", [False, True])
@pytest.mark.parametrize("merge_loaded", [False, True])
@pytest.mark.parametrize(("init", "sparse_a"), INITS)
def test_state_dict_round_trip_same_function(merge_saved, merge_loaded, init, sparse_a):
    linear, layer = make(init=init, sparse_a=sparse_a, alpha=5.0)
    perturb(layer)
    x = torch.randn(3, 32)
    expected = layer(x).detach()
    if merge_saved:
        layer.merge()
    stream = io.BytesIO()
    torch.save(layer.state_dict(), stream)
    stream.seek(0)
    _, other = make(init=init, sparse_a=sparse_a)  # another W0, another alpha
    if merge_loaded:
        other.merge()
    other.load_state_dict(torch.load(stream, weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(other(x), expected, atol=1e-5, rtol=0)
        other.unmerge()
        assert torch.equal(other(x), expected)
        with active(other, main=False, sub=False):
            assert torch.equal(other(x), linear(x))


def test_load_state_dict_plain_weights_raises():
    linear, layer = make()
    before = layer.residual.clone()
    with pytest.raises(RuntimeError, match=r"load plain weights before adapt\(\)"):
        layer.load_state_dict(linear.state_dict(), strict=False)
    assert torch.equal(layer.residual, before)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("is_merged", [False, True])
def test_copied_layer_same_output(clone, is_merged):
    _, layer = make()
    perturb(layer)
    if is_merged:
        layer.merge()
    other, x = clone(layer), torch.randn(3, 32)
    assert torch.equal(layer(x), other(x))
    perturb(other)
    other.unmerge(), layer.unmerge()
    assert not torch.equal(layer(x), other(x))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copied_layer_inside_active_copy_is_on(clone):
    _, layer = make()
    perturb(layer)
    x = torch.randn(3, 32)
    expected = layer(x)
    with active(layer, main=False, sub=False):
        other = clone(layer)
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    torch.testing.assert_close(other(x), expected)
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize("is_merged", [False, True])
def test_cast_layer_same_output(is_merged):
    linear, layer = make()
    perturb(layer)
    x = torch.randn(3, 32)
    expected = layer(x).detach()
    if is_merged:
        layer.merge()
    layer.bfloat16()
    with torch.no_grad():
        torch.testing.assert_close(layer(x.bfloat16()).float(), expected, atol=6e-2, rtol=0)
        layer.unmerge()
        torch.testing.assert_close(layer(x.bfloat16()).float(), expected, atol=6e-2, rtol=0)
    assert torch.equal(layer.pretrained_weight(), linear.weight.bfloat16())


def test_backward_merged_layer_raises():
    _, layer = make()
    layer.merge()
    x = torch.randn(3, 32, requires_grad=True)
    nested = torch.nested.nested_tensor([x.detach(), x.detach()[:2]], layout=torch.jagged)
    for out in (layer(x), layer(nested).values()):
        with pytest.raises(RuntimeError, match="unmerge the model before training"):
            out.sum().backward()
    for name, parameter in layer.named_parameters():
        if name.startswith("lora_"):
            parameter.requires_grad_(False)
    x.grad = None
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.effective_weight().sum(0).expand(3, -1))


def test_gradients_pass_gradcheck():
    _, layer = make(out=6, inn=5, r_main=2, r_sub=1, dtype=torch.float64)
    names = ["lora_A_main", "lora_B_main", "lora_A_sub", "lora_B_sub", "bias"]
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    values = [getattr(layer, name).detach().requires_grad_() for name in names]
    torch.autograd.gradcheck(function, (x, *values))


@pytest.mark.parametrize("sparse_a", [False, True])
def test_autocast_and_compile_match_eager(sparse_a):
    linear, layer = make(sparse_a=sparse_a)
    x = torch.randn(3, 32)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    compiled(x).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        out.sum().backward()
        layer.merge()
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), linear(x), atol=5e-2, rtol=0)
    assert layer.merged_weight.dtype == torch.float32
    torch.testing.assert_close(layer.merged_weight, linear.weight, atol=1e-6, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


def test_from_linear_source_unchanged():
    linear = nn.Linear(32, 48).eval()
    before = copy.deepcopy(linear.state_dict())
    layer = DualLoRALinear.from_linear(linear, 9, 3)
    perturb(layer).half()
    layer.bias.data.zero_()
    assert all(torch.equal(before[key], value) for key, value in linear.state_dict().items())
    assert linear.weight.requires_grad and not layer.training


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"r_main": 30, "r_sub": 3}, ValueError, "30 [+] 3 = 33 is above .* = 32 of this layer"),
        ({"r_main": -1}, ValueError, "r_main must be 0 or more, got -1"),
        ({"r_sub": 1.5}, TypeError, "r_sub must be an int, got 1.5"),
        ({"alpha": 0.0}, ValueError, "alpha must be a finite number above 0"),
        ({"alpha": float("nan")}, ValueError, "alpha"),
        ({"init": "qr"}, ValueError, "one of rrqr, svd, kaiming, .*got 'qr'"),
        ({"init": "svd", "sparse_a": True}, ValueError, "sparse_a=True needs init='rrqr'"),
        ({"init": "kaiming", "sparse_a": True}, ValueError, "sparse_a=True needs init='rrqr'"),
    ],
)
def test_from_linear_invalid_settings_raises(settings, error, words):
    with pytest.raises(error, match=words):
        DualLoRALinear.from_linear(nn.Linear(32, 48), **{"r_main": 9, "r_sub": 3, **settings})


def test_from_linear_invalid_layer_raises():
    linear, layer = make()
    with pytest.raises(ValueError, match="adapted already"):
        DualLoRALinear.from_linear(layer, 2, 1)
    with pytest.raises(TypeError, match=r"must be an nn\.Linear, got Conv2d"):
        DualLoRALinear.from_linear(nn.Conv2d(3, 3, 1), 2, 1)
    with pytest.raises(ValueError, match="run one forward pass first"):
        DualLoRALinear.from_linear(nn.LazyLinear(4), 2, 1)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    with pytest.raises(ValueError, match="remove the parametrization"):
        DualLoRALinear.from_linear(normed, 2, 1)
    linear.weight.data[3, 4] = float("nan")
    for init in ("rrqr", "svd", "kaiming"):
        with pytest.raises(ValueError, match="NaN or Inf"):
            DualLoRALinear.from_linear(linear, 2, 1, init=init)
