"""The dual-adapter linear layer: a frozen residual weight, a main and a sub adapter."""

import dataclasses
import weakref
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import dual_lora_linear
from .checks import check_assigned_weight, check_linear
from .decomposition import decompose
from .initialisers import Factors
from .merging import MergeableLinear
from .mixtures import Mixture, check_one_weight, forward_per_sample, mixed_weight
from .pair import AdapterPair, new_serial
from .selection import is_conv1d, plain_weight
from .settings import AdapterSettings, Init
from .sharding import copy_values, full_tensor
from .switches import Switches, switches_of, tie_to_state


class DualLoRALinear(MergeableLinear, AdapterPair):
    r"""A linear layer with a frozen residual weight and two adapters, main and sub.

    .. math:: y = x (W_{res} + s\,B_{main} A_{main} + s\,B_{sub} A_{sub})^T + b, \quad
              s = \alpha / (r_{main} + r_{sub})

    With the initial factors, the effective weight equals the pretrained weight W0. The residual
    W_res is frozen and the factors are trained. ``train()`` and ``eval()`` do not change weights.
    Use :meth:`from_linear` to create a layer.

    The layer has one active pair of adapters, whose factors are parameters of the layer. Other
    pairs are frozen and stored in ``pairs``. The state dict of a merged layer equals that of the
    unmerged layer.

    Attributes
    ----------
    residual : Parameter, (out, in)
        The frozen residual W_res of the active pair, also available while merged.
    weight : Tensor, (out, in)
        The effective weight, a differentiable property. Its shape is (in, out) for a ``Conv1D``.
    bias : Parameter, (out,), or None
        The bias of the layer that was adapted.
    lora_A_main, lora_B_main, lora_A_sub, lora_B_sub, columns, initial_A, initial_B, scaling
        The active pair; see :class:`AdapterPair`.
    pretrained : Tensor, or None
        The part of W0 that restores it from W_res: None if B_init A_init = 0, the pivot columns
        (out, r_main + r_sub) if A_init is one-hot ("rrqr"), and all of W0 otherwise.
    merged_weight : Tensor, (out, in), or None
        The weight in use while merged. It is not part of the state dict.
    pair_name, pairs : str, ModuleDict
        The name of the active pair, initially "default", and the other pairs by name.
    mixture : Mixture, or None
        The pairs whose weighted sum replaces the active pair.

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
        self,
        weight: Tensor,
        bias: Tensor | None,
        factors: Factors,
        settings: AdapterSettings,
        *,
        source_type: type | None = None,
    ) -> None:
        super().__init__(factors, weight.shape[1], settings)
        self.out_features = weight.shape[0]
        self.source_type = source_type  # for a Conv1D, weight is (in, out)
        self._source: Callable[[], Tensor | None] | None = None
        weight = weight.detach()
        self.residual = nn.Parameter(weight.contiguous().clone(), requires_grad=False)
        self.register_parameter("bias", None)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
        self.register_buffer("pretrained", None)
        self.register_buffer("merged_weight", None, persistent=False)
        self._last_switches = Switches()
        self._last_code = 0
        self.sample_contexts = 0  # number of threads in pairs_per_sample()
        self.pair_name = "default"
        self.pairs = nn.ModuleDict()
        self.mixture: Mixture | None = None
        self.merged_serial = 0
        self._take_residual(weight)

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        r_main: int = 32,
        r_sub: int = 4,
        alpha: float = 1.0,
        init: Init = "rrqr",
        sparse_a: bool = False,
    ) -> "DualLoRALinear":
        """Return a layer with adapters that computes the same outputs as ``linear``.

        ``linear`` is unchanged. The new layer contains copies of its tensors, with the same device,
        dtype and ``requires_grad`` of the bias. A weight in half precision is decomposed in
        float32. On the meta device only shapes are computed.

        Parameters
        ----------
        linear : nn.Linear
            The layer to adapt, with weight (out, in).
        r_main, r_sub : int
            The ranks, 0 or more, together at most min(out, in).
        alpha : float
            A value above 0; the adapters are scaled by alpha / (r_main + r_sub).
        init : str, pair of str or Callable
            A name of an initialiser (see :mod:`recyclelora.adapters.initialisers`), a pair (main,
            sub) of names, or a function ``f(weight (out, in), r, side) -> (A (r, in), B (out, r))``
            with side "main" or "sub". The function receives a copy of the weight, in float32 if the
            weight is in half precision. It returns dense, finite tensors of the same dtype. s B A
            is subtracted from the weight.
        sparse_a : bool
            Whether A is restricted to the pivot columns; only for "rrqr".

        Returns
        -------
        DualLoRALinear
            The layer with adapters.

        Raises
        ------
        TypeError, ValueError
            If a setting is out of range, if the layer is already adapted or contains NaN or Inf, or
            if it overrides ``forward``, which would bypass the adapters.
        """
        settings = AdapterSettings(r_main, r_sub, alpha, init, sparse_a)
        check_linear(linear, settings)
        factors = decompose(plain_weight(linear), settings)
        return cls.from_factors(linear, factors, settings)

    @classmethod
    def from_factors(
        cls, linear: nn.Module, factors: Factors, settings: AdapterSettings
    ) -> "DualLoRALinear":
        """Return a layer with given initial factors that computes the same outputs as ``linear``.

        Parameters
        ----------
        linear : nn.Module
            A linear layer with weight (out, in), or a ``Conv1D`` of Hugging Face transformers.
        factors : Factors
            The initial factors.
        settings : AdapterSettings
            Ranks, scaling and initialisation.

        Returns
        -------
        DualLoRALinear
            The layer with adapters.
        """
        source_type = type(linear) if is_conv1d(linear) else None
        layer = cls(plain_weight(linear), linear.bias, factors, settings, source_type=source_type)
        layer._source = weakref.ref(linear.weight)
        return layer.train(linear.training)

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
        if (out := forward_per_sample(self, x)) is not None:
            return out
        switches = self.switches()
        if self.merged_weight is not None:
            (x,) = tie_to_state(self, self.merged_serial, switches, [x])
            return self.forward_merged(x, self._trained_factors())
        if x.is_nested:
            return F.linear(x, self._weight_with_gradient(), self.bias)
        if self.mixture is not None:
            (x,) = tie_to_state(self, self.mixture.serial, switches, [x])
            return F.linear(x, mixed_weight(self, switches, self.initial_B.dtype), self.bias)
        x, *factors = tie_to_state(self, self.serial, switches, [x, *self.factors(*switches)])
        if not self._trained_in_use(switches):
            return F.linear(x, self.pretrained_weight(), self.bias)
        columns = self.columns if self.settings.sparse_a else None
        return dual_lora_linear(x, self.residual, self.bias, *factors, self.scaling, columns)

    @property
    def weight(self) -> Tensor:
        """Return the effective weight, differentiable in the factors unless the layer is merged."""
        weight = self._weight_with_gradient()
        return weight.T if self.source_type is not None else weight

    def _weight_with_gradient(self) -> Tensor:
        """Return W_res + s B A (out, in), computed in the factors' dtype and cast to the base's."""
        check_one_weight(self)
        switches = self.switches()
        if self.merged_weight is not None:
            tie_to_state(self, self.merged_serial, switches, [])
            return self.merged_weight_now()
        if self.mixture is not None:
            tie_to_state(self, self.mixture.serial, switches, [])
            return mixed_weight(self, switches, self.initial_B.dtype)
        factors = tie_to_state(self, self.serial, switches, list(self.factors(*switches)))
        if not self._trained_in_use(switches):
            return self.pretrained_weight()
        A_main, B_main, A_sub, B_sub = factors
        with torch.autocast(self.residual.device.type, enabled=False):
            product = self.scaling * (B_main @ A_main + B_sub @ A_sub)
            if self.settings.sparse_a:
                weight = self.residual.to(product.dtype).index_add(1, self.columns, product)
            else:
                weight = self.residual + product
        return weight.to(self.residual.dtype)

    def merge(self) -> None:
        """Compute with one plain weight; see :meth:`MergeableLinear.merge`."""
        super().merge()
        self.merged_serial = new_serial()

    def switches(self) -> Switches:
        """Return which adapters are on in the running thread.

        Returns
        -------
        Switches
            Whether main is on, and whether sub is on.
        """
        if torch.compiler.is_compiling():  # compiled code depends on this plain attribute
            return self._last_switches
        return switches_of(self, self._last_switches)

    def __setattr__(self, name: str, value: object) -> None:
        if name != "weight":
            super().__setattr__(name, value)
        elif self._source is None or value is not self._source():
            weight = self.pretrained_weight()
            check_assigned_weight(value, weight if self.source_type is None else weight.T)

    def pair(self, name: str) -> AdapterPair:
        """Return a pair of adapters.

        Parameters
        ----------
        name : str
            The name of the pair.

        Returns
        -------
        AdapterPair
            The pair. The active pair is the layer itself.
        """
        return self if name == self.pair_name else self.pairs[name]

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the active pair, detached.

        Returns
        -------
        dict[str, Tensor]
            The tensors by name. Absent ones are left out.

        Raises
        ------
        ValueError
            If the layer computes with a weighted sum of pairs.
        """
        if self.mixture is not None:
            weights = ", ".join(f"{name!r}: {weight:g}" for name, weight in self.mixture.weights)
            raise ValueError(
                f"the layer computes with several pairs ({{{weights}}}), but a file holds one: "
                "activate the pair to save with activate_pair() first"
            )
        return super().tensors()

    def _trained_factors(self) -> list[Tensor]:
        if self.mixture is not None:
            return []
        factors = [getattr(self, name) for name in self.FACTORS]
        return [factor for factor in factors if factor is not None]

    def pretrained_weight(self) -> Tensor:
        """Return the pretrained weight W0, bit for bit.

        Returns
        -------
        Tensor
            W0 (out, in). It may share memory with the layer, so do not modify it.
        """
        if self.pretrained is not None and self.columns is None:
            return self.pretrained
        residual = full_tensor(self.residual.detach())
        if self.pretrained is None:
            return residual
        return residual.index_copy(1, self.columns, self.pretrained)

    @torch.no_grad()
    def effective_weight(self) -> Tensor:
        """Return the weight (out, in) that the unmerged layer applies: W_res + s B A.

        The sum is computed in float64 and cast once to the dtype of the base. With both adapters
        off, the result is bitwise equal to W0.

        Returns
        -------
        Tensor
            The weight (out, in), without gradient.

        Raises
        ------
        RuntimeError
            If each sample has its own pair of adapters, see :func:`pairs_per_sample`.
        """
        check_one_weight(self)
        switches = self.switches()
        if self.mixture is not None:
            return mixed_weight(self, switches, torch.float64).clone()
        if not self._trained_in_use(switches):
            return self.pretrained_weight().clone()
        factors = (factor.double() for factor in self.factors(*switches))
        A_main, B_main, A_sub, B_sub = factors
        product = self.scaling * (B_main @ A_main + B_sub @ A_sub)
        weight, sparse_a = self.residual.double(), self.settings.sparse_a
        weight = weight.index_add(1, self.columns, product) if sparse_a else weight + product
        return weight.to(self.residual.dtype)

    def __getstate__(self) -> dict:
        # A weak reference cannot be pickled; a copy compares an assigned weight by its values.
        left_out = {"_source": None, "sample_contexts": 0, "_last_switches": Switches()}
        return self.__dict__ | left_out

    def exchange(self, other: AdapterPair) -> None:
        """Swap the active pair with another pair of this layer; W0 does not change.

        See :meth:`AdapterPair.exchange`. A merged layer stays merged, with the new pair.

        Parameters
        ----------
        other : AdapterPair
            The other pair.
        """
        if self.merged_weight is not None:
            check_one_weight(self)
        weight = self.pretrained_weight()
        super().exchange(other)
        self._take_residual(weight)
        if self.merged_weight is not None:
            self.merge()

    def extra_repr(self) -> str:
        """Return the description of the layer in ``print(model)``."""
        values = dataclasses.asdict(self.settings) | {"alpha": f"{self.settings.alpha:g}"}
        if self.mixture is not None:
            values["mixture"] = dict(self.mixture.weights)
        settings = ", ".join(f"{key}={value}" for key, value in values.items())
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {settings}, "
            f"merged={self.merged_weight is not None}"
        )

    def _trained_in_use(self, switches: Switches) -> bool:
        main, sub = switches
        return bool((main and self.settings.r_main) or (sub and self.settings.r_sub))

    @torch.no_grad()
    def _take_residual(self, weight: Tensor) -> None:
        """Set W_res = W0 - s B_init A_init in place, and store what restores W0 = weight."""
        residual, self.pretrained = self.residual_of(weight)
        copy_values(self.residual, residual)

    def _load_from_state_dict(
        self, state_dict, prefix, metadata, strict, missing, unexpected, errors
    ):  # type: ignore[no-untyped-def]
        # A plain weight would become the residual, and the adapters would be applied twice.
        if f"{prefix}weight" in state_dict and f"{prefix}residual" not in state_dict:
            errors.append(
                f"{prefix}weight is a plain weight (no {prefix}residual beside it), but the "
                "model is adapted: load plain weights before adapt()"
            )
            return
        super()._load_from_state_dict(
            state_dict, prefix, metadata, strict, missing, unexpected, errors
        )
        if self.merged_weight is not None:
            self.merge()
