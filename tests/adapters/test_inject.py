import copy
import threading
import warnings

import pytest
import torch
from torch import nn

from recyclelora import DualLoRALinear, adapt
from recyclelora.adapters import active, adapted_layers, adapter_parameters, decomposition


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.proj(nn.functional.scaled_dot_product_attention(q, k, v))
        return x + self.gamma * self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))


def test_adapt_replaces_linears_and_freezes_rest():
    model = nn.Sequential(Block(24), nn.BatchNorm1d(5), Block(24))
    model[0].norm.bias.requires_grad_(False)
    x = torch.randn(2, 5, 24)
    model.eval()
    before = model(x)
    assert adapt(model, r_main=4, r_sub=2) is model
    assert not any(isinstance(m, nn.Linear) for m in model.modules())
    assert len(adapted_layers(model)) == 8 and not adapted_layers(model)["0.qkv"].training
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in model.named_parameters() if ".lora_" in n}
    assert len(trained) == 8 * 4
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
        assert name not in trained or parameter.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("init", ["rrqr", "svd", "kaiming"])
def test_adapt_stacked_equals_from_linear(init, dtype, monkeypatch):
    """Decomposing in stacks does not change a bit, even if a shape fills several stacks."""
    monkeypatch.setattr(decomposition, "STACKED_BYTES", 3 * 24 * 24 * 4)
    model = nn.Sequential(*(Block(24) for _ in range(5)), nn.Linear(24, 8)).to(dtype)
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    settings = {"r_main": 4, "r_sub": 2, "alpha": 3.0, "init": init}
    torch.manual_seed(1)
    alone = {name: DualLoRALinear.from_linear(m, **settings) for name, m in linears.items()}
    torch.manual_seed(1)
    adapted = adapted_layers(adapt(model, **settings))
    assert adapted.keys() == alone.keys()
    for name, layer in adapted.items():
        state = alone[name].state_dict()
        assert state.keys() == layer.state_dict().keys()
        for key, tensor in layer.state_dict().items():
            assert torch.equal(tensor, state[key]), f"{name}.{key}"
            assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize


def test_adapt_weights_of_two_shapes_decomposed_at_once(monkeypatch):
    both, original = threading.Barrier(2, timeout=30), decomposition.decompose

    def decompose(*arguments):
        both.wait()  # until another thread is here
        assert torch.get_num_threads() == 1 and not torch.is_grad_enabled()
        return original(*arguments)

    monkeypatch.setattr(decomposition, "decompose", decompose)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        adapt(nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 9)), r_main=2, r_sub=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_adapt_interrupted_leaves_the_model_and_the_threads(monkeypatch):
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 9), nn.Linear(9, 4))
    threads = torch.get_num_threads()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(decomposition, "wait", interrupt)  # Ctrl-C arrives in the main thread
    with pytest.raises(KeyboardInterrupt):
        adapt(model, r_main=2, r_sub=1)
    assert [type(layer) for layer in model] == [nn.Linear] * 3
    assert torch.get_num_threads() == threads
    assert torch.ones(1).requires_grad_().sum().requires_grad


def test_adapt_single_linear_returns_layer():
    linear = nn.Linear(16, 8)
    layer = adapt(linear, r_main=4, r_sub=2)
    assert isinstance(layer, DualLoRALinear) and not layer.bias.requires_grad


def test_adapt_both_ranks_zero_only_freezes():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    before = list(model.modules())
    assert list(adapt(model, r_main=0, r_sub=0).modules()) == before
    assert not any(p.requires_grad for p in model.parameters())


def test_adapt_shared_layer_stays_shared():
    shared, tied = nn.Linear(8, 8), nn.Linear(8, 8)
    tied.weight = shared.weight
    model = nn.Sequential(shared, nn.Tanh(), shared, tied)
    x = torch.randn(3, 8)
    before = model(x)
    adapt(model, r_main=3, r_sub=1)
    assert model[0] is model[2] and isinstance(model[0], DualLoRALinear)
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=0)
    assert len(adapter_parameters(model).main) == 4


def test_adapt_twice_raises():
    model = adapt(nn.Sequential(nn.Linear(8, 8)), r_main=3, r_sub=1)
    before = copy.deepcopy(model.state_dict())
    for ranks in [(3, 1), (0, 0)]:
        with pytest.raises(ValueError, match="layer '0' is adapted already"):
            adapt(model, *ranks)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda m: m[2].weight.data.fill_(float("inf")), "weight of layer '2' holds NaN or Inf"),
        (lambda m: m.append(nn.Linear(3, 8)), "4 [+] 2 = 6 .* = 3 of layer '3' .8 x 3."),
        (lambda m: m.append(nn.LazyLinear(8)), "layer '3' is lazy"),
        (lambda m: m[2].register_forward_hook(lambda *_: None), "layer '2' has hooks"),
        (lambda m: m[2].register_full_backward_pre_hook(lambda *_: None), "layer '2' has hooks"),
        (lambda m: nn.utils.parametrizations.spectral_norm(m[2]), "layer '2' computes its weight"),
    ],
)
def test_adapt_invalid_layer_changes_nothing(spoil, words):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    spoil(model)
    modules = list(model.modules())
    with pytest.raises(ValueError, match=words):
        adapt(model, r_main=4, r_sub=2)
    assert list(model.modules()) == modules
    assert all(p.requires_grad for p in model.parameters())


def test_adapt_linear_with_own_forward_raises():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(ValueError, match="layer '0' is a Doubled with its own forward"):
        adapt(nn.Sequential(Doubled(8, 8)), r_main=3, r_sub=1)


def test_adapt_not_a_module_raises():
    with pytest.raises(TypeError, match=r"must be an nn\.Module, got dict"):
        adapt({"weight": torch.ones(8, 8)})


def test_adapt_without_linears_warns():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with pytest.warns(UserWarning, match="found no nn.Linear"):
        adapt(model)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("training", [True, False])
def test_adapt_torch_transformer_uses_adapters(training):
    """The fused inference path reads weights instead of calling layers, so it must use adapters."""
    model = nn.Transformer(16, 2, 2, 2, 32, dropout=0.0, batch_first=True).train(training)
    source, target = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True

    def run():
        return model(source, target, src_key_padding_mask=padding, memory_key_padding_mask=padding)

    with torch.no_grad():
        before = run()
    with pytest.warns(UserWarning, match="cannot reach 6 weights.*self_attn.in_proj_weight"):
        adapt(model, r_main=4, r_sub=2)
    assert len(adapted_layers(model)) == 14
    with torch.no_grad():
        torch.testing.assert_close(run(), before, atol=1e-5, rtol=0)
        for layer in adapted_layers(model).values():
            layer.lora_B_main.add_(0.5)
        changed = run()
        assert (changed - before).abs().max() > 1e-2
        with active(model, main=False, sub=False):
            torch.testing.assert_close(run(), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(run(), changed, atol=1e-5, rtol=0)
    run().square().sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 14 * 4
    assert all(p.grad is not None and p.grad.any() for p in trained.values())


def dinov2_large_linears():
    """Return the linear layers of DINOv2-L's 24 blocks on the meta device."""
    with torch.device("meta"):
        shapes = {"qkv": (1024, 3072), "proj": (1024, 1024), "fc1": (1024, 4096)}
        shapes["fc2"] = (4096, 1024)
        blocks = [
            nn.ModuleDict({name: nn.Linear(*shape) for name, shape in shapes.items()})
            for _ in range(24)
        ]
        return nn.ModuleList(blocks)


@pytest.mark.parametrize("sparse_a", [False, True])
@pytest.mark.parametrize(
    ("r_main", "r_sub", "count"),
    [
        (32, 0, 12_582_912),
        (0, 4, 1_572_864),
        (32, 4, 14_155_776),
        (32, 2, 13_369_344),
        (16, 4, 7_864_320),
    ],
)
def test_adapt_dinov2_large_parameter_counts(r_main, r_sub, count, sparse_a):
    model = adapt(dinov2_large_linears(), r_main, r_sub, sparse_a=sparse_a)
    assert all(p.is_meta for p in model.parameters())
    if sparse_a:  # A is (r, r_main + r_sub) instead of (r, in)
        inputs = 24 * (1024 + 1024 + 1024 + 4096)
        count += (r_main + r_sub) * (96 * (r_main + r_sub) - inputs)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("init", ["rrqr", "svd", "kaiming"])
def test_meta_model_loads_state_dict_with_assign(init):
    def build(device):
        with torch.device(device):
            model = nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 12))
        return adapt(model, r_main=3, r_sub=2, init=init, alpha=2.0)

    model, empty = build("cpu"), build("meta")
    with torch.no_grad():
        model[0].lora_B_main.add_(0.3)
    assert empty(torch.empty(5, 12, device="meta")).shape == (5, 12)
    with pytest.raises(RuntimeError, match="meta device and has no values"):
        empty.to_empty(device="cpu")
    with pytest.raises(NotImplementedError, match="meta"):
        empty.cpu()
    empty.bfloat16()
    assert empty[0].residual.is_meta and empty[0].residual.dtype == torch.bfloat16
    empty.load_state_dict(model.state_dict(), assign=True)
    x = torch.randn(3, 12)
    assert torch.equal(empty(x), model(x))
    grads = [{n: p.requires_grad for n, p in m.named_parameters()} for m in (model, empty)]
    assert grads[0] == grads[1]
    with active(model, main=False), active(empty, main=False):
        assert torch.equal(empty(x), model(x))


def test_adapt_plain_model_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapt(nn.Sequential(nn.Linear(8, 8)), r_main=3, r_sub=1)


@pytest.mark.parametrize("sparse_a", [False, True])
def test_output_changed_in_place_keeps_gradients(sparse_a):
    """Modify the input in place, like nn.ReLU(inplace=True), or timm with the biases of qkv."""
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(inplace=True), nn.Linear(32, 16))
    x = torch.randn(2, 5, 16)
    expected = model(x).detach() + 1
    adapted = adapt(model, r_main=4, r_sub=2, sparse_a=sparse_a)
    out = adapted(x)
    out += 1
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    out.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in adapted.parameters() if p.requires_grad)
