"""The systems of ``benchmark.adapter``: a linear layer, frozen or adapted by several libraries."""

import contextlib
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.worker import Timed, timed
from recyclelora import DualLoRALinear

try:
    import peft
except ModuleNotFoundError:
    peft = None

R_MAIN, R_SUB = 32, 4  # the ranks of the paper
# The dtype of weights and inputs, and the dtype of autocast, if any.
PRECISIONS = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "autocast": (torch.float32, torch.bfloat16),
}
FACTORS = ("A_main", "B_main", "A_sub", "B_sub")


class PublishedLayer(nn.Module):
    """The published layer during training, in which each adapter is a separate branch."""

    def __init__(self, layer: DualLoRALinear):
        super().__init__()
        self.weight, self.bias, self.scaling = layer.residual, layer.bias, layer.scaling
        for name in FACTORS:
            value = getattr(layer, f"lora_{name}").detach().to(self.weight.dtype, copy=True)
            setattr(self, name, nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x, self.weight, self.bias)
        out = out + (x @ self.A_main.T @ self.B_main.T) * self.scaling
        return out + (x @ self.A_sub.T @ self.B_sub.T) * self.scaling


def peft_layer(layer: DualLoRALinear) -> nn.Module:
    """Return the same function built with peft: one linear layer with two active LoRA adapters."""
    out_features, in_features = layer.residual.shape
    base = nn.Linear(in_features, out_features, bias=layer.bias is not None)
    base.weight, base.bias = layer.residual, layer.bias
    ranks = {"main": layer.settings.r_main, "sub": layer.settings.r_sub}
    configs = {
        name: peft.LoraConfig(r=rank, lora_alpha=layer.scaling * rank, target_modules=["0"])
        for name, rank in ranks.items()
    }
    model = peft.get_peft_model(
        nn.Sequential(base), configs["main"], "main", autocast_adapter_dtype=False
    )
    model.add_adapter("sub", configs["sub"], autocast_adapter_dtype=False)
    model.base_model.set_adapter(["main", "sub"])
    (adapted,) = model.base_model.model
    for name in ranks:
        for factor, linears in (("A", adapted.lora_A), ("B", adapted.lora_B)):
            value = getattr(layer, f"lora_{factor}_{name}").detach()
            linears[name].weight = nn.Parameter(value.to(base.weight.dtype, copy=True))
    return adapted


def build(linear: nn.Linear, r_main: int = R_MAIN, r_sub: int = R_SUB) -> dict[str, nn.Module]:
    """Return every system for one pretrained linear; its factors differ from the initial ones."""
    layers = {}
    for name, sparse_a in (("dense", False), ("sparse", True)):
        layer = DualLoRALinear.from_linear(linear, r_main, r_sub, sparse_a=sparse_a)
        with torch.no_grad():
            for factor in FACTORS:
                parameter = getattr(layer, f"lora_{factor}")
                parameter += 0.02 * torch.randn_like(parameter)
        layers[name] = layer
    systems = {"frozen": linear, "published": PublishedLayer(layers["dense"])}
    if peft is not None:
        systems["peft"] = peft_layer(layers["dense"])
    return {**systems, "ours, dense": layers["dense"], "ours, sparse": layers["sparse"]}


def factors(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the adapters' parameters of any system by our names; empty for the frozen layer."""
    if isinstance(module, DualLoRALinear):
        return {name: getattr(module, f"lora_{name}") for name in FACTORS}
    if isinstance(module, PublishedLayer):
        return {name: getattr(module, name) for name in FACTORS}
    if isinstance(module, nn.Linear):
        return {}
    linears = {"A": module.lora_A, "B": module.lora_B}
    return {name: linears[name[0]][name[2:]].weight for name in FACTORS}


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return the context in which a forward pass of that precision runs."""
    dtype = PRECISIONS[precision][1]
    return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


def run(module: nn.Module, x: Tensor, grad: Tensor, precision: str) -> tuple[Tensor, list[Tensor]]:
    """Run a forward pass and a backward pass to x and the factors."""
    with autocast(x.device, precision):
        out = module(x)
    return out, torch.autograd.grad(out, [x, *factors(module).values()], grad.to(out.dtype))


@torch.no_grad()
def exact(module: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Return the output and the gradients of x and the factors, by formulas in float64."""
    x, grad = x.double(), grad.double()
    base = module.base_layer if hasattr(module, "base_layer") else module
    bias = None if base.bias is None else base.bias.double()
    weight = (base.residual if isinstance(base, DualLoRALinear) else base.weight).double()
    out, grad_x, grads = F.linear(x, weight, bias), grad @ weight, []
    values = {name: value.double() for name, value in factors(module).items()}
    scaling = 1 / sum(len(values[name]) for name in ("A_main", "A_sub")) if values else 0
    sparse = isinstance(module, DualLoRALinear) and module.settings.sparse_a
    columns = module.columns if sparse else None
    for name in ("main", "sub") if values else ():
        A, B = values[f"A_{name}"], values[f"B_{name}"]
        seen = x if columns is None else x[:, columns]
        hidden = seen @ A.T
        back = scaling * grad @ B
        out = out + scaling * hidden @ B.T
        grad_seen = back @ A
        grad_x = grad_x + grad_seen if columns is None else grad_x.index_add(1, columns, grad_seen)
        grads += [back.T @ seen, scaling * grad.T @ hidden]
    return [out, grad_x, *grads]


def errors(module: nn.Module, x: Tensor, grad: Tensor, precision: str) -> dict[str, float]:
    """Return the largest errors of output and gradients, relative to their largest entries."""
    out, grads = run(module, x, grad, precision)
    names = ["output", "x", *factors(module)]
    return {
        name: float((mine.detach().double() - true).abs().max() / true.abs().max())
        for name, mine, true in zip(names, [out, *grads], exact(module, x, grad), strict=True)
    }


def saved_bytes(module: nn.Module, x: Tensor, precision: str) -> int:
    """Return the bytes saved for the backward pass, without parameters and buffers."""
    own = [*module.parameters(), *module.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, autocast(x.device, precision):
        out = module(x)  # must stay alive while its storages are counted
    del out
    return sum(saved.values())


@functools.lru_cache(maxsize=8)
def case(
    name: str, shape: tuple[int, int], rows: int, precision: str, device: str
) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a system, its input and the gradient of its output, equal in every process."""
    dtype, _ = PRECISIONS[precision]
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0]).to(device, dtype).requires_grad_(False)
    module = build(linear)[name]
    torch.manual_seed(1)
    x = torch.randn(rows, shape[1], device=device, dtype=dtype, requires_grad=True)
    return module, x, torch.randn(rows, shape[0], device=device, dtype=dtype)


def describe(name: str, *arguments: Any) -> dict[str, Any]:
    """Return the errors and the saved bytes of one system; see :func:`case` for the arguments."""
    module, x, grad = case(name, *arguments)
    precision = arguments[2]
    return {
        "errors": errors(module, x, grad, precision),
        "saved_bytes": saved_bytes(module, x, precision),
    }


def time_one(name: str, *arguments: Any) -> Timed:
    """Time a forward and a backward pass of one system; see :func:`case` for the arguments."""
    module, x, grad = case(name, *arguments)
    found = timed(functools.partial(run, module, x, grad, arguments[2]), x.device)
    return found._replace(value=None)
