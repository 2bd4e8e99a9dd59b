"""Computing with one pair for each sample of a batch."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recyclelora.adapters import (
    activate_pair,
    activate_pairs,
    active,
    export,
    merge,
    merged,
    pairs_per_sample,
)

from ..support.trained_adapters import three_pairs

pytestmark = pytest.mark.filterwarnings("ignore:.*optimisers")

SETTINGS = {
    "dense": {},
    "sparse": {"sparse_a": True},
    "svd": {"init": "svd"},
    "mixed": {"init": ("rrqr", "kaiming")},
}


def network():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 12))


def trained(model=None, **settings):
    return three_pairs(network() if model is None else model, **settings)


class Block(nn.Module):
    """Attention over tokens, and a convolution; dimension 0 is always the samples."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Linear(16, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head((x + self.proj(y)).mean(1))


def alone(model, x, names):
    """Return the outputs of each sample with its pair, computed one after the other."""
    outs = []
    for sample, name in zip(x, names):
        if name is not None:
            activate_pair(model, name)
        with active(model, main=name is not None, sub=name is not None):
            outs.append(model(sample[None]))
    activate_pair(model, "default")
    return torch.cat(outs)


@pytest.mark.parametrize("settings", SETTINGS)
def test_per_sample_equals_each_sample_alone(settings):
    torch.manual_seed(5)
    model, x = trained(Block(), **SETTINGS[settings]), torch.randn(5, 3, 16)
    names = ["night", None, "rain", "night", "default"]
    with torch.no_grad():
        expected, before = alone(model, x, names), model(x)
        with pairs_per_sample(model, names) as inside:
            assert inside is model
            torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
        assert torch.equal(model(x), before)
        for is_merged in (False, True):  # the outer state does not matter
            activate_pairs(model, {"night": 0.5})
            if is_merged:
                merge(model)
            outside = model(x)
            with pairs_per_sample(model, names):
                torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
            assert torch.equal(model(x), outside)


def test_per_sample_half_precision_and_autocast():
    model, x = trained(), torch.randn(3, 16)
    names = ["night", "rain", "default"]
    with torch.no_grad(), pairs_per_sample(model, names):
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)
        out = model.to(torch.bfloat16)(x.bfloat16())
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)


def test_per_sample_nested_and_inside_active():
    model, x = trained(), torch.randn(2, 16)
    with torch.no_grad():
        with active(model, main=True, sub=False):
            expected = alone(model, x, ["night", "rain"])
        activate_pair(model, "night")
        with active(model, main=True, sub=False):
            expected[0] = model(x[:1])[0]
        activate_pair(model, "rain")
        with active(model, main=True, sub=False):
            expected[1] = model(x[1:])[0]
        activate_pair(model, "default")
        with pairs_per_sample(model, ["rain", "rain"]):
            with pairs_per_sample(model, ["night", "rain"]), active(model, sub=False):
                torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)
            rain = alone(copy.deepcopy(model), x, ["rain", "rain"])
            torch.testing.assert_close(model(x), rain, atol=1e-5, rtol=0)


def test_per_sample_belongs_to_thread_and_ends_after_error():
    model, x = trained(), torch.randn(2, 16)
    with torch.no_grad():
        before, results = model(x), []
        expected = {names: alone(model, x, names) for names in [("night", "rain"), ("rain", None)]}
        barrier = threading.Barrier(2, timeout=60)

        def serve(names):
            with torch.no_grad(), pairs_per_sample(model, names):
                barrier.wait()
                for _ in range(20):
                    results.append((names, model(x)))
                barrier.wait()

        threads = [threading.Thread(target=serve, args=(names,)) for names in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 40
        for names, out in results:
            torch.testing.assert_close(out, expected[names], atol=1e-5, rtol=0)
        with pytest.raises(KeyError), pairs_per_sample(model, ["night", "rain"]):
            raise KeyError
        assert torch.equal(model(x), before) and model[0].sample_contexts == 0


@pytest.mark.parametrize("shape", [(3, 16), (1, 16), (16,), (2, 4, 16)])
def test_per_sample_other_batch_size_raises(shape):
    model = trained()
    names = ["night"] * (16 if shape == (16,) else 4)
    with pairs_per_sample(model, names), pytest.raises(ValueError, match="needs inputs of size"):
        model(torch.randn(*shape))


def test_per_sample_models_that_move_samples_raise():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = nn.Linear(16, 16)

        def forward(self, x):  # (n, tokens, in) to (n * windows, 2, in) and back
            return self.proj(x.reshape(-1, 2, 16)).reshape(x.shape)

    model = trained(Windows())
    raises = pytest.raises(ValueError, match="window attention")
    with pairs_per_sample(model, ["night", "rain"]), raises:
        model(torch.randn(2, 6, 16))


def test_per_sample_read_weight_raises():
    with pytest.warns(UserWarning, match="in_proj_weight"):
        model = trained(nn.MultiheadAttention(16, 2, batch_first=True))
    x = torch.randn(2, 3, 16)
    raises = pytest.raises(RuntimeError, match=r"MultiheadAttention reads out_proj\.weight")
    with pairs_per_sample(model, ["night", "rain"]), raises:
        model(x, x, x)
    model(x, x, x)
    model = trained()
    before = copy.deepcopy(model.state_dict())
    merge(model)
    kept = model[0].merged_weight.clone()
    with pairs_per_sample(model, ["night", "rain"]):
        for call in (
            lambda: model[0].weight,
            lambda: merge(model),
            lambda: merged(model).__enter__(),
            lambda: export(model),
            lambda: export(model, copy=False),
            lambda: activate_pair(model, "night"),
            lambda: activate_pairs(model, {"night": 1.0}),
        ):
            with pytest.raises(RuntimeError, match="a weight for each sample"):
                call()
    assert torch.equal(model[0].merged_weight, kept)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_per_sample_checkpointing_right_or_raises(use_reentrant):
    model = trained()
    x = torch.randn(2, 16, requires_grad=True)
    with pairs_per_sample(model, ["night", "rain"]):
        out = model(x)
        out.square().sum().backward()
        assert all(p.grad is None for name, p in model.named_parameters() if "lora_" in name)
        expected, x.grad = x.grad, None
        checkpoint(model, x, use_reentrant=use_reentrant).square().sum().backward()
        torch.testing.assert_close(x.grad, expected)
        x.grad = None
        out = checkpoint(model, x, use_reentrant=use_reentrant)
    if use_reentrant:
        with pytest.raises(RuntimeError, match="state of an adapted layer"):
            out.square().sum().backward()
    else:
        out.square().sum().backward()
        torch.testing.assert_close(x.grad, expected)


def test_per_sample_compiled_model_follows():
    model, x = trained(), torch.randn(2, 16)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
        for names in (["night", "rain"], ["rain", None]):
            with pairs_per_sample(model, names):
                torch.testing.assert_close(compiled(x), model(x))
        torch.testing.assert_close(compiled(x), model(x))
        torch._dynamo.reset()
        whole = torch.compile(model, backend="eager", fullgraph=True)
        with pairs_per_sample(model, ["night", "rain"]), pytest.raises(RuntimeError):
            whole(x)


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        ("night", TypeError, "names must be a list"),
        ([], TypeError, "names must be a list"),
        (None, TypeError, "names must be a list"),
        (["night", "dusk"], ValueError, "no adapter pair 'dusk'"),
        (["night", 3], ValueError, "no adapter pair 3"),
    ],
)
def test_per_sample_invalid_names_raise(names, error, words):
    model = trained()
    with pytest.raises(error, match=words), pairs_per_sample(model, names):
        pass
    with pytest.raises(ValueError, match="call adapt"), pairs_per_sample(network(), ["night"]):
        pass
