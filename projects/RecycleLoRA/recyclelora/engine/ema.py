"""An average of the weights over the training, which is what is evaluated."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from recyclelora.common.validation import check_integer, check_number, short_repr


class WeightAverage:
    """The exponential moving average of a model's trainable parameters.

    After iteration t (from 0) every average becomes ``d average + (1 - d) parameter`` with
    ``d = min(decay, (1 + t) / (10 + t))``, so that a short run forgets where it began. With a
    ``start`` the averages are the parameters themselves before that iteration, and ``d = decay``
    from then on. Nothing else of the model is copied: what is frozen is its own average.

    Args:
        model: not wrapped in DDP; its parameters are the first averages.
        decay: between 0 and 1, as 0.999.
        start: the first iteration that is averaged; None averages from the first one, as above.

    Raises:
        ValueError: ``decay`` is not between 0 and 1, or ``start`` is no iteration.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average, before = WeightAverage(model, decay=0.999), model.weight.item()
        >>> nn.init.constant_(model.weight, before + 1.0).item() == before + 1.0
        True
        >>> average.update(0)  # a tenth of the old value, nine tenths of the new one
        >>> with average.applied():
        ...     print(round(model.weight.item() - before, 4))
        0.9
        >>> round(model.weight.item() - before, 4)
        1.0
    """

    def __init__(self, model: nn.Module, *, decay: float, start: int | None = None):
        if not 0 < decay < 1:
            raise ValueError(f"expected train.ema between 0 and 1, as 0.999, or null, got {decay}")
        if start is not None:
            check_integer("train.ema.start", start)
        self.decay = decay
        self.start = start
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.averages = {n: p.detach().clone() for n, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take in the parameters as they are after ``iteration``."""
        if self.start is not None and iteration < self.start:
            self._copy(self.parameters, self.averages)
            return
        decay = self.decay
        if self.start is None:
            decay = min(decay, (1 + iteration) / (10 + iteration))
        for name, average in self.averages.items():
            average.lerp_(self.parameters[name], 1.0 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averages; afterwards every bit of its own weights."""
        own = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._copy(self.averages, self.parameters)
        try:
            yield
        finally:
            self._copy(own, self.parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the name of their parameter."""
        return self.averages

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the averages of a checkpoint of the same model.

        Raises:
            ValueError: they are of other parameters.
        """
        if different := state.keys() ^ self.averages.keys():
            raise ValueError(
                f"the checkpoint averages other parameters than train here: {min(different)} is "
                "only in one of them. Use the config that it was trained with"
            )
        self._copy(state, self.averages)

    @staticmethod
    @torch.no_grad()
    def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])


def weight_average(model: nn.Module, ema: float | Mapping | None) -> WeightAverage | None:
    """The average that ``train.ema`` asks for: null, its decay, or its decay and its start.

    Raises:
        ValueError: it is none of these.
    """
    if ema is None:
        return None
    settings = dict(ema) if isinstance(ema, Mapping) else {"decay": ema}
    if "decay" not in settings or settings.keys() - {"decay", "start"}:
        raise ValueError(
            "train.ema must be null, a decay such as 0.999, or dict(decay=0.9998, start=12_000), "
            f"got {short_repr(settings)}"
        )
    check_number("train.ema.decay", settings["decay"], most=1)
    return WeightAverage(model, **settings)
