"""The dual-adapter linear layer: a frozen residual weight, a main and a sub adapter."""

import copy
import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import dual_lora_linear
from .checks import check_linear
from .initialisers import INITIALISERS, Factors
from .merging import MergeableLinear
from .pair import AdapterPair
from .settings import AdapterSettings


class DualLoRALinear(MergeableLinear, AdapterPair):
    r"""A linear layer whose pretrained weight is recycled into two adapters.

    .. math:: y = x (W_{res} + s\,B_{main} A_{main} + s\,B_{sub} A_{sub})^T + b, \quad
              s = \alpha / (r_{main} + r_{sub})

    With the initial factors the weight is the pretrained W0. The residual W_res is frozen, the
    factors train. ``train()`` and ``eval()`` change no weight. Make one with :meth:`from_linear`.

    The layer has one active pair of adapters, whose factors are its own parameters; further pairs
    wait, frozen, in ``pairs``. The state dict is always the unmerged form, merged or not.

    Attributes
    ----------
    weight : Parameter, (out, in)
        The frozen residual W_res of the active pair, also while merged.
    bias : Parameter, (out,), or None
    lora_A_main, lora_B_main, lora_A_sub, lora_B_sub, columns, initial_A, initial_B, scaling
        The active pair, see :class:`AdapterPair`.
    pretrained : Tensor, or None
        What W_res lacks of W0: the pivot columns (out, r_main + r_sub) for "rrqr", all of W0 for
        "svd" (which changes every entry), nothing for "kaiming".
    merged_weight : Tensor, (out, in), or None
        The weight in use while merged; not in the state dict.
    main_on, sub_on : bool
        Whether main and sub act with their trained factors; if not, with their initial ones.
    pair_name : str
        The active pair's name, "default" at first.
    pairs : ModuleDict
        The other pairs by name.

    Examples
    --------
    >>> linear = torch.nn.Linear(16, 8)
    >>> layer = DualLoRALinear.from_linear(linear, r_main=3, r_sub=1)
    >>> x = torch.randn(2, 16)
    >>> torch.allclose(layer(x), linear(x), atol=1e-5)
    True
    >>> torch.equal(layer.pretrained_weight(), linear.weight)
    True
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, factors: Factors, settings: AdapterSettings
    ) -> None:
        super().__init__(factors, weight.shape[1], settings)
        self.out_features = weight.shape[0]
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.register_parameter("bias", None)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
        self.register_buffer("pretrained", None)
        self.register_buffer("merged_weight", None, persistent=False)
        self.main_on = self.sub_on = True
        self.pair_name = "default"
        self.pairs = nn.ModuleDict()
        self._take_residual(weight.detach())

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        r_main: int = 32,
        r_sub: int = 4,
        alpha: float = 1.0,
        init: str = "rrqr",
        sparse_a: bool = False,
    ) -> "DualLoRALinear":
        """The layer that computes what ``linear`` computes, with adapters to train.

        ``linear`` itself is left as it is; the new layer holds copies, on the same device and in
        the same dtype, with the bias trainable or not as it was. A weight in half precision is
        decomposed in float32. On the meta device only shapes are made.

        Parameters
        ----------
        linear : nn.Linear, weight (out, in)
        r_main, r_sub : int
            Ranks, 0 or more, together at most min(out, in).
        alpha : float
            Above 0; the adapters are scaled by alpha / (r_main + r_sub).
        init : {"rrqr", "svd", "kaiming"}
            See :mod:`recyclelora.adapters.initialisers`.
        sparse_a : bool
            Only for "rrqr": A is restricted to the pivot columns.

        Raises
        ------
        TypeError, ValueError
            One sentence if a setting is out of range, or if the layer is adapted already, holds
            NaN or Inf, or is a linear whose adapters would not be seen.
        """
        settings = AdapterSettings(r_main, r_sub, alpha, init, sparse_a)
        check_linear(linear, settings)
        weight = linear.weight.detach()
        factors = INITIALISERS[init](weight, r_main, r_sub, settings.scaling)
        return cls(weight, linear.bias, factors, settings).train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """``x (..., in)`` to ``(..., out)``."""
        if self.merged_weight is not None:
            return self.forward_merged(x, [getattr(self, name) for name in self.FACTORS])
        if not self._trained_in_use():
            return F.linear(x, self.pretrained_weight(), self.bias)
        factors = self.factors(self.main_on, self.sub_on)
        columns = self.columns if self.settings.sparse_a else None
        return dual_lora_linear(x, self.weight, self.bias, *factors, self.scaling, columns)

    def pretrained_weight(self) -> Tensor:
        """W0 (out, in), bit for bit; not to be written to."""
        if self.pretrained is None:
            return self.weight.detach()
        if self.columns is None:
            return self.pretrained
        return self.weight.detach().index_copy(1, self.columns, self.pretrained)

    @torch.no_grad()
    def effective_weight(self) -> Tensor:
        """The weight (out, in) that the unmerged layer applies: W_res + s B A.

        The sum is formed in float64 and cast once to the weight's dtype. With both adapters off
        it is W0, bit for bit.
        """
        if not self._trained_in_use():
            return self.pretrained_weight().clone()
        factors = (factor.double() for factor in self.factors(self.main_on, self.sub_on))
        A_main, B_main, A_sub, B_sub = factors
        product = self.scaling * (B_main @ A_main + B_sub @ A_sub)
        weight, sparse_a = self.weight.double(), self.settings.sparse_a
        weight = weight.index_add(1, self.columns, product) if sparse_a else weight + product
        return weight.to(self.weight.dtype)

    def set_active(self, main: bool, sub: bool) -> None:
        """Switch main and sub on (trained factors) or off (initial factors); both off is W0."""
        self.main_on, self.sub_on = main, sub
        if self.merged_weight is not None:
            self.merge()

    def to_dense(self) -> "DualLoRALinear":
        """A copy whose A covers all inputs: lora_A_main (r_main, in), lora_A_sub (r_sub, in)."""
        layer = copy.deepcopy(self)
        if self.settings.sparse_a:
            for name in ("lora_A_main", "lora_A_sub"):
                A = getattr(self, name)
                dense = A.detach().new_zeros(len(A), self.in_features)
                dense = dense.index_copy(1, self.columns, A.detach())
                setattr(layer, name, nn.Parameter(dense, requires_grad=A.requires_grad))
            layer.settings = dataclasses.replace(self.settings, sparse_a=False)
        return layer

    def put_pair(self, name: str, pair: AdapterPair) -> None:
        """Keep ``pair`` under ``name``; if that is the active pair's name, it takes its place."""
        pair.requires_grad_(False)
        if name == self.pair_name:
            self._change_over(pair)
        else:
            self.pairs[name] = pair

    def activate_pair(self, name: str) -> None:
        """Compute with the pair of this name, its residual derived from W0.

        The parameters change places with those of the pair that was active, which waits frozen.
        A merged layer stays merged, with the new pair.
        """
        if name == self.pair_name:
            return
        if name not in self.pairs:
            known = ", ".join(sorted({self.pair_name, *self.pairs}))
            raise ValueError(f"there is no adapter pair {name!r}; known are: {known}")
        pair = self.pairs.pop(name)
        self._change_over(pair)
        self.pairs[self.pair_name] = pair
        self.pair_name = name

    def extra_repr(self) -> str:
        """Text of the layer in ``print(model)``."""
        values = dataclasses.asdict(self.settings) | {"alpha": f"{self.settings.alpha:g}"}
        settings = ", ".join(f"{key}={value}" for key, value in values.items())
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {settings}, "
            f"merged={self.merged_weight is not None}"
        )

    def _trained_in_use(self) -> bool:
        ranks = self.settings.r_main, self.settings.r_sub
        return any(on and rank for on, rank in zip((self.main_on, self.sub_on), ranks))

    def _change_over(self, pair: AdapterPair) -> None:
        weight = self.pretrained_weight()
        self.exchange(pair)
        self._take_residual(weight)
        if self.merged_weight is not None:
            self.merge()

    @torch.no_grad()
    def _take_residual(self, weight: Tensor) -> None:
        """Set W_res = W0 - s B_init A_init in place, and keep what it loses of W0 = weight."""
        initial_B = self.initial_B.double()
        if self.settings.init == "kaiming" or self.settings.rank == 0:
            self.pretrained, residual = None, weight  # B_init A_init is zero
        elif self.columns is not None:
            self.pretrained = weight.index_select(1, self.columns)
            # A_init is one-hot, so only the pivot columns change.
            pivots = self.pretrained.double() - self.scaling * initial_B
            residual = weight.index_copy(1, self.columns, pivots.to(weight.dtype))
        else:
            self.pretrained = weight.clone()
            product = self.scaling * (initial_B @ self.initial_A.double())
            residual = (weight.double() - product).to(weight.dtype)
        self.weight.copy_(residual)

    def _load_from_state_dict(
        self, state_dict, prefix, metadata, strict, missing, unexpected, errors
    ):  # type: ignore[no-untyped-def]
        # Plain weights would become the residual, and the adapters would count twice.
        if f"{prefix}weight" in state_dict and f"{prefix}lora_A_main" not in state_dict:
            errors.append(
                f"{prefix}weight is a plain weight (no {prefix}lora_A_main beside it), but the "
                "model is adapted: load plain weights before adapt()"
            )
            return
        super()._load_from_state_dict(
            state_dict, prefix, metadata, strict, missing, unexpected, errors
        )
        if self.merged_weight is not None:
            self.merge()
