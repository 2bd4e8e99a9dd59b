"""DoRA (Liu et al., ICML 2024) trains the norms and the directions of a weight separately."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recyclelora.adapters import AdapterSettings, MergeableLinear
from recyclelora.adapters.checks import check_linear
from recyclelora.adapters.inject import find_linears, replace_modules
from recyclelora.common.validation import check_integer, check_number

from .checks import check_module


class DoRALinear(MergeableLinear, nn.Linear):
    r"""A linear layer whose weight is a magnitude times a direction that LoRA changes.

    .. math:: W = m \frac{W_0 + s B A}{\|W_0 + s B A\|_c}, \quad s = \alpha / r

    The norm is that of each output's weights (DoRA, eq. 5). The backward pass treats it as a
    constant (DoRA, section 4.3). Initially B = 0 and m is the norm of W0, so W = W0.

    Attributes
    ----------
    weight : Parameter, (out, in)
        W0, frozen; the tensor of the original linear layer.
    bias : Parameter, (out,), or None
        The bias of the original linear layer.
    lora_A : Parameter, (r, in)
        Initially Kaiming-uniform, from torch's global generator.
    lora_B : Parameter, (out, r)
        Initially 0.
    magnitude : Parameter, (out,)
        Norms of the rows of the weight.
    merged_weight : Tensor, (out, in), or None
        See :class:`MergeableLinear`.

    Examples
    --------
    >>> linear = nn.Linear(16, 8)
    >>> layer, x = DoRALinear(linear, rank=3, alpha=3.0), torch.randn(2, 16)
    >>> torch.allclose(layer(x), linear(x), atol=1e-6)
    True
    """

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight = linear.weight.detach()
        self.scaling = alpha / rank
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = linear.bias
        self.lora_A = nn.Parameter(weight.new_empty(rank, self.in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(self.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.magnitude = nn.Parameter(_row_norms(weight))
        self.register_buffer("merged_weight", None, persistent=False)
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output of the layer.

        Parameters
        ----------
        x : Tensor
            Inputs (..., in).

        Returns
        -------
        Tensor
            Outputs (..., out).
        """
        if self.merged_weight is not None:
            return self.forward_merged(x, [self.lora_A, self.lora_B, self.magnitude])
        moved = F.linear(x, self.weight)
        moved = moved + self.scaling * F.linear(F.linear(x, self.lora_A), self.lora_B)
        out = (self.magnitude / self._lengths()).to(moved.dtype) * moved
        return out if self.bias is None else out + self.bias.to(out.dtype)

    @torch.no_grad()
    def effective_weight(self) -> Tensor:
        """Return the weight (out, in) that the unmerged layer applies.

        Returns
        -------
        Tensor
            The weight, computed in float64 and cast once.
        """
        moved = self.weight.double() + self.scaling * self.lora_B.double() @ self.lora_A.double()
        lengths = _row_norms(moved)
        return ((self.magnitude.double() / lengths)[:, None] * moved).to(self.weight.dtype)

    def extra_repr(self) -> str:
        """Return the settings that ``print(model)`` shows.

        Returns
        -------
        str
            The text.
        """
        return f"{super().extra_repr()}, rank={len(self.lora_A)}, scaling={self.scaling:g}"

    @torch.no_grad()
    def _lengths(self) -> Tensor:
        """Return the norms (out,) of the rows of W0 + s B A, as a constant in the backward pass."""
        # Full precision, because a norm rounded to bfloat16 would change the pretrained weight.
        with torch.autocast(self.weight.device.type, enabled=False):
            moved = torch.addmm(self.weight, self.lora_B, self.lora_A, alpha=self.scaling)
            return _row_norms(moved)


def _row_norms(weight: Tensor) -> Tensor:
    # The direction of a row of zeros must be zero: 0 / tiny is 0, but 0 / 0 is NaN.
    return torch.linalg.vector_norm(weight, dim=1).clamp_min(torch.finfo(weight.dtype).tiny)


def dora(module: nn.Module, rank: int = 36, alpha: float = 36.0) -> nn.Module:
    """Give every ``nn.Linear`` inside ``module`` a magnitude and a LoRA, and freeze the rest.

    The layers are replaced in place by :class:`DoRALinear`; the output does not change.

    Parameters
    ----------
    module : nn.Module
        A backbone or any other module that is not adapted yet.
    rank : int
        Rank of every adapter, at most the smaller side of its weight.
    alpha : float
        The adapters are scaled by alpha / rank.

    Returns
    -------
    nn.Module
        ``module``; if it is itself an ``nn.Linear``, the layer that replaces it.

    Raises
    ------
    TypeError, ValueError
        If an argument or a layer does not fit. The message names it, and ``module`` is unchanged.

    Examples
    --------
    >>> model = dora(nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 16)), rank=4, alpha=4.0)
    >>> [name for name, p in model.named_parameters() if p.requires_grad][:3]
    ['0.lora_A', '0.lora_B', '0.magnitude']
    """
    check_module(module)
    check_integer("rank", rank, least=1, most=65_536)
    check_number("alpha", alpha, least=1e-6, most=1e6)
    read_only = {m.out_proj for m in module.modules() if isinstance(m, nn.MultiheadAttention)}
    linears = {n: m for n, m in find_linears(module).items() if m not in read_only}
    for name, linear in linears.items():
        check_linear(linear, AdapterSettings(0, 0), f"layer {name!r}")
        if rank > min(linear.weight.shape):
            raise ValueError(
                f"rank={rank} is above min(out, in) = {min(linear.weight.shape)} of layer "
                f"{name!r}: choose a lower rank"
            )
    module.requires_grad_(False)
    layers = {linear: DoRALinear(linear, rank=rank, alpha=alpha) for linear in linears.values()}
    module = replace_modules(module, layers)
    for child in module.modules():  # fused paths read the weights and would miss the adapters
        if isinstance(child, nn.TransformerEncoderLayer):
            child.activation_relu_or_gelu = 0  # PyTorch's value for "no fused path"
        elif isinstance(child, nn.TransformerEncoder):
            child.use_nested_tensor = False
    return module
