import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from recyclelora.ops import dual_lora_linear, reference
from recyclelora.ops.library import load

# (rows, in, out): few and many rows for forward and backward, so every path is taken.
SIZES = [(3, 12, 10), (40, 12, 10), (20, 6, 40), (20, 40, 6), (1, 5, 5), (0, 6, 4)]
RANKS = pytest.mark.parametrize("ranks", [(3, 1), (4, 0), (0, 2)])
SPARSE = pytest.mark.parametrize("sparse", [False, True])


def make(rows, inn, out, sparse=False, dtype=torch.float64, ranks=(3, 1), weight_trains=True):
    """Return x, weight, bias, A_main, B_main, A_sub, B_sub, scaling and columns."""
    columns = torch.randperm(inn)[: sum(ranks)] if sparse else None

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()

    weight = (randn(out, inn).detach() / inn**0.5).requires_grad_(weight_trains)
    width = sum(ranks) if sparse else inn
    factors = [randn(*shape) for r in ranks for shape in ((r, width), (out, r))]
    return randn(rows, inn), weight, randn(out), *factors, 0.25, columns


def formula(x, weight, bias, A_main, B_main, A_sub, B_sub, scaling, columns=None):
    """Compute the layer with one branch per adapter, as published."""
    inputs = x if columns is None else x[..., columns]
    main = scaling * F.linear(F.linear(inputs, A_main), B_main)
    sub = scaling * F.linear(F.linear(inputs, A_sub), B_sub)
    return F.linear(x, weight, bias) + main + sub


def detached(arguments):
    return [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]


@SPARSE
@RANKS
@pytest.mark.parametrize("size", SIZES)
def test_value_and_gradients_equal_the_formula(size, ranks, sparse):
    arguments = make(*size, sparse=sparse, ranks=ranks)
    *tensors, _, _ = arguments
    out, expected = dual_lora_linear(*arguments), formula(*arguments)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    weighting = torch.randn_like(out)
    grads = torch.autograd.grad(out, tensors, weighting)
    for mine, theirs in zip(grads, torch.autograd.grad(expected, tensors, weighting)):
        torch.testing.assert_close(mine, theirs, atol=1e-11, rtol=0)


@SPARSE
@pytest.mark.parametrize("size", SIZES)
def test_reference_equals_the_operator(size, sparse):
    arguments = detached(make(*size, sparse=sparse))
    op = torch.ops.recyclelora
    for mine, plain in zip(op.dual_lora_linear(*arguments), reference.dual_lora_linear(*arguments)):
        torch.testing.assert_close(mine, plain, atol=1e-12, rtol=0)
    x, weight, _, *factors, scaling, columns = arguments
    kept = reference.dual_lora_linear(*arguments)[1]
    grad = torch.randn(len(x), len(weight), dtype=x.dtype)
    inputs = (grad, x, kept, weight, *reference.joined(*factors), scaling, columns)
    for wanted in ([True] * 4, [False, True, True, False], [True, False, False, True]):
        mine = op.dual_lora_linear_backward(*inputs, wanted)
        plain = reference.dual_lora_linear_backward(*inputs, wanted)
        for one, other in zip(mine, plain):
            torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


@SPARSE
@pytest.mark.parametrize("size", SIZES[:4])
def test_gradcheck_first_and_second_order_passes(size, sparse):
    *tensors, scaling, columns = make(*size, sparse=sparse, ranks=(1, 1))

    def function(*tensors):
        return dual_lora_linear(*tensors, scaling, columns)

    torch.autograd.gradcheck(function, tensors, check_forward_ad=True, fast_mode=True)
    torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@SPARSE
@RANKS
@pytest.mark.parametrize("size", SIZES)
def test_opcheck_of_both_operators_passes(size, ranks, sparse):
    arguments = make(*size, sparse=sparse, dtype=torch.float32, ranks=ranks)
    torch.library.opcheck(torch.ops.recyclelora.dual_lora_linear, arguments)
    x, weight, _, *factors, scaling, columns = detached(arguments)
    out, kept = torch.ops.recyclelora.dual_lora_linear(x, weight, None, *factors, scaling, columns)
    A, B = reference.joined(*factors)
    for wanted in ([True] * 4, [False] * 4, [True, False, False, True]):
        torch.library.opcheck(
            torch.ops.recyclelora.dual_lora_linear_backward,
            (torch.randn_like(out), x, kept, weight, A, B, scaling, columns, wanted),
        )


@SPARSE
def test_gradients_of_any_subset_equal_the_formula(sparse):
    *everything, scaling, columns = make(9, 8, 6, sparse, weight_trains=False)
    x, _, bias, A_main, B_main, A_sub, B_sub = everything
    alone = [[one] for one in (x, bias, A_main, B_main, A_sub, B_sub)]
    for chosen in (*alone, [x, B_sub], [A_main, bias], [A_main, B_main], [A_sub, B_main]):
        arguments = [t if any(t is c for c in chosen) else t.detach() for t in everything]
        out = dual_lora_linear(*arguments, scaling, columns)
        expected = formula(*everything, scaling, columns)
        grads = torch.autograd.grad(out.square().sum(), chosen)
        for mine, theirs in zip(grads, torch.autograd.grad(expected.square().sum(), chosen)):
            torch.testing.assert_close(mine, theirs, atol=1e-11, rtol=0)


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 0, 8), (2, 3, 4, 8)])
@SPARSE
def test_any_shape_and_stride_equals_the_formula(shape, sparse):
    _, *others = make(1, 8, 6, sparse)
    x = torch.randn(*shape, dtype=torch.float64)
    strided = torch.randn(*shape[:-1], 16, dtype=torch.float64)[..., ::2].requires_grad_()
    flipped = torch.randn(8, *shape[:-1], dtype=torch.float64).movedim(0, -1).requires_grad_()
    for one in (x, strided, flipped):
        out = dual_lora_linear(one, *others)
        torch.testing.assert_close(out, formula(one, *others), atol=1e-12, rtol=0)
        out.sum().backward()
    assert strided.grad.shape == shape


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [40, 400])
@SPARSE
def test_half_precision_error_is_at_most_twice_pytorchs(rows, dtype, autocast, sparse):
    precise = make(rows, 64, 96, sparse, torch.float32, (6, 2), weight_trains=False)
    half = [t.to(dtype) if isinstance(t, torch.Tensor) and t.is_floating_point() else t
            for t in detached(precise)]  # fmt: skip
    precise = [half[i].float() if i < 7 else half[i] for i in range(9)]
    trained = [0, *range(2, 7)]

    def run(function, arguments, cast):
        arguments = [copy.deepcopy(a) for a in arguments]
        for i in trained:
            arguments[i].requires_grad_()
        with torch.autocast("cpu", dtype, enabled=cast):
            out = function(*arguments)
        torch.manual_seed(7)
        grads = torch.autograd.grad(
            out, [arguments[i] for i in trained], torch.randn(out.shape).to(out.dtype)
        )
        assert [g.dtype for g in grads] == [arguments[i].dtype for i in trained]
        return [out.float(), *(g.float() for g in grads)]

    given = precise if autocast else half
    exact = run(formula, precise, False)
    mine, plain = run(dual_lora_linear, given, autocast), run(formula, given, autocast)
    for truth, ours, theirs in zip(exact, mine, plain):
        assert (ours - truth).norm() <= 2 * (theirs - truth).norm() + 1e-6


@pytest.mark.skipif(not load(), reason="the reference rounds each product, not their sum")
def test_autocast_rounds_the_sum_of_weights_once():
    _, weight, _, *factors, scaling, _ = detached(make(400, 64, 96, dtype=torch.float32))
    weight = weight.bfloat16().float()
    factors = [0.1 * factor for factor in factors]  # updates below the weight's own precision
    with torch.autocast("cpu", torch.bfloat16):
        out = dual_lora_linear(torch.eye(64).repeat(7, 1), weight, None, *factors, scaling)
    A, B = reference.joined(*factors)
    assert torch.equal(out[:64].T, (weight + scaling * B @ A).bfloat16())
    assert not torch.equal(out[:64].T, weight.bfloat16())


@SPARSE
def test_in_place_change_before_backward_raises(sparse):
    arguments = make(40, 12, 10, sparse, weight_trains=False)
    _, _, _, A_main, _, _, B_sub, _, _ = arguments
    dual_lora_linear(*arguments)
    with torch.no_grad():
        B_sub.add_(1)
    out = dual_lora_linear(*arguments)
    torch.testing.assert_close(out, formula(*arguments), atol=1e-12, rtol=0)
    with torch.no_grad():
        A_main.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_output_changed_in_place_has_right_gradients():
    arguments = make(40, 12, 10)
    out, expected = dual_lora_linear(*arguments).relu_(), formula(*arguments).relu()
    grads = torch.autograd.grad(out.square().sum(), arguments[:7])
    plain = torch.autograd.grad(expected.square().sum(), arguments[:7])
    torch.testing.assert_close(grads, plain, atol=1e-11, rtol=0)


@SPARSE
def test_checkpointing_gives_the_same_gradients(sparse):
    x, *others = make(40, 12, 10, sparse)
    plain = torch.autograd.grad(dual_lora_linear(x, *others).square().sum(), [x, others[3]])
    out = checkpoint(dual_lora_linear, x, *others, use_reentrant=False)
    for mine, expected in zip(torch.autograd.grad(out.square().sum(), [x, others[3]]), plain):
        assert torch.equal(mine, expected)


@SPARSE
def test_compile_with_any_number_of_rows_equals_eager(sparse):
    _, *others = make(1, 12, 10, sparse, torch.float32, weight_trains=False)
    factors = others[2:6]

    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def compiled(x):
        return dual_lora_linear(x, *others)

    for rows in (3, 40, 90):
        x = torch.randn(2, rows, 12, requires_grad=True)
        out, expected = compiled(x), formula(x, *others)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
        grads = torch.autograd.grad(out.square().sum(), (x, *factors))
        plain = torch.autograd.grad(expected.square().sum(), (x, *factors))
        torch.testing.assert_close(grads, plain, atol=1e-3, rtol=1e-4)


@pytest.mark.skipif(not load(), reason="the reference is exported as its formula")
def test_exported_program_has_one_operator():
    x, *others = detached(make(3, 12, 10))

    class Layer(torch.nn.Module):
        def forward(self, x):
            return dual_lora_linear(x, *others)

    shapes = ({0: torch.export.Dim("rows", min=2, max=99)},)
    program = torch.export.export(Layer(), (x,), dynamic_shapes=shapes)
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count(torch.ops.recyclelora.dual_lora_linear.default) == 1
    x = torch.randn(7, 12, dtype=x.dtype)
    assert torch.equal(program.module()(x), dual_lora_linear(x, *others))


@SPARSE
def test_torch_func_equals_the_formula(sparse):
    *tensors, scaling, columns = detached(make(6, 12, 10, sparse))

    def loss(function):
        return lambda *t: function(*t, scaling, columns).square().sum()

    everything = tuple(range(7))
    mine = torch.func.grad(loss(dual_lora_linear), everything)(*tensors)
    expected = torch.func.grad(loss(formula), everything)(*tensors)
    torch.testing.assert_close(mine, expected, atol=1e-11, rtol=0)
    rows = torch.func.vmap(dual_lora_linear, (0, *[None] * 8))(*tensors, scaling, columns)
    torch.testing.assert_close(rows, formula(*tensors, scaling, columns), atol=1e-12, rtol=0)
    tangents = [torch.randn_like(t) for t in tensors]
    mine = torch.func.jvp(loss(dual_lora_linear), tuple(tensors), tuple(tangents))
    torch.testing.assert_close(mine, torch.func.jvp(loss(formula), tuple(tensors), tuple(tangents)))


@SPARSE
def test_inference_mode_and_threads_do_not_affect_later_calls(sparse):
    arguments = make(40, 12, 10, sparse)
    expected = dual_lora_linear(*arguments).detach()
    with torch.inference_mode():
        assert torch.equal(dual_lora_linear(*arguments), expected)
    small = make(40, 6, 4, sparse)
    dual_lora_linear(*small).sum().backward()
    assert torch.equal(dual_lora_linear(*arguments), expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({0: torch.randn(3, 7)}, r"x must be \(..., 8\)"),
        ({1: torch.randn(6)}, r"weight must be \(out, in\)"),
        ({2: torch.randn(5)}, r"bias must be \(6,\)"),
        ({3: torch.randn(3, 7)}, r"A_main must be \(r, 8\)"),
        ({4: torch.randn(6, 5)}, r"B_main must be \(6, 3\)"),
        ({5: torch.randn(1)}, r"A_sub must be \(r, 8\)"),
        ({6: torch.randn(5, 1)}, r"B_sub must be \(6, 1\)"),
        (dict(zip(range(3, 7), [torch.randn(0, 8), torch.randn(6, 0)] * 2)), "at least one row"),
        ({0: torch.randn(3, 8).half()}, "x must have the dtype of weight, got torch.float16"),
        ({3: torch.randn(3, 8).double()}, "all or none of them float64"),
        ({8: torch.tensor([0, 1])}, r"A_main must be \(r, 2\)"),
        ({8: torch.tensor([1.0])}, r"columns must be \(n,\) and int64"),
        ({8: torch.tensor([[1]])}, r"columns must be \(n,\) and int64"),
    ],
)
def test_invalid_input_raises_value_error(changes, words):
    arguments = detached(make(3, 8, 6, dtype=torch.float32))
    for index, value in changes.items():
        arguments[index] = value
    with pytest.raises(ValueError, match=f"dual_lora_linear: .*{words}"):
        dual_lora_linear(*arguments)
    if "dtype of weight" not in words:
        with pytest.raises(ValueError, match=f"dual_lora_linear: .*{words}"):
            reference.dual_lora_linear(*arguments)


@pytest.mark.skipif(not load(), reason="only the compiled operator names the column")
@pytest.mark.parametrize(
    ("column", "words"), [(8, r"columns must be 0\.\.7, the columns of x, got 8"), (-1, "got -1")]
)
def test_columns_out_of_range_raise_index_error(column, words):
    arguments = detached(make(3, 8, 6, sparse=True))
    arguments[8][1] = column
    with pytest.raises(IndexError, match=words):
        dual_lora_linear(*arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [False, True])
@SPARSE
@pytest.mark.parametrize("size", SIZES[:4])
def test_cuda_equals_the_cpu(size, sparse, autocast):
    *tensors, scaling, columns = detached(make(*size, sparse, torch.float32))
    on_gpu = [t.cuda().requires_grad_() for t in tensors]
    on_cpu = [t.requires_grad_() for t in tensors]
    results = []
    for device, inputs in (("cuda", on_gpu), ("cpu", on_cpu)):
        moved = None if columns is None else columns.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            out = dual_lora_linear(*inputs, scaling, moved)
        grads = torch.autograd.grad(out.square().sum(), inputs)
        results.append([t.detach().float().cpu() for t in (out, *grads)])
    tolerance = 0.5 if autocast else 1e-3
    torch.testing.assert_close(*results, atol=tolerance, rtol=0.05 if autocast else 1e-4)
