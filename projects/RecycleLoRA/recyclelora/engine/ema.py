"""Exponential moving averages of the weights, which replace the weights in evaluations."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from recyclelora.common.state_dicts import describe_mismatch
from recyclelora.common.validation import check_integer, check_number, short_repr


class WeightAverage:
    """Exponential moving average of a model's trainable parameters.

    After iteration t (counted from 0), every average becomes ``d average + (1 - d) parameter`` with
    ``d = min(decay, (1 + t) / (10 + t))``. This reduces the influence of the initial values in
    short runs. With ``start``, the averages equal the parameters before that iteration, and ``d``
    equals ``decay`` from then on.

    The update is that of :mod:`torch.optim.swa_utils`. Its ``AveragedModel`` is not used because it
    also copies frozen parameters, which make up most of the model.

    Parameters
    ----------
    model : nn.Module
        The model, not wrapped in DDP. The averages start with its parameters.
    decay : float
        The decay, between 0 and 1; for instance 0.999.
    start : int, optional
        The first iteration that is averaged. None averages from the first iteration, as described
        above.

    Raises
    ------
    ValueError
        If ``decay`` is not between 0 and 1, or ``start`` is not a valid iteration.

    Examples
    --------
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
            raise ValueError(
                f"expected train.ema between 0 and 1, such as 0.999, or null, got {decay}"
            )
        if start is not None:
            check_integer("train.ema.start", start)
        self.decay = decay
        self.start = start
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.averages = {n: p.detach().clone() for n, p in self.parameters.items()}

    def update(self, iteration: int) -> None:
        """Update the averages with the parameters after ``iteration``.

        Parameters
        ----------
        iteration : int
            The iteration, counted from 0.
        """
        decay = self.decay
        if self.start is None:
            decay = min(decay, (1 + iteration) / (10 + iteration))
        elif iteration < self.start:
            decay = 0.0
        update = get_ema_multi_avg_fn(decay)
        update([*self.averages.values()], [*self.parameters.values()], iteration)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the weights of the model by the averages inside the ``with`` block.

        After the block, the model has its own weights again.
        """
        own = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._copy(self.averages, self.parameters)
        try:
            yield
        finally:
            self._copy(own, self.parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by parameter name."""
        return self.averages

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy the averages of a checkpoint of the same model.

        Parameters
        ----------
        state : Mapping[str, Tensor]
            A result of :meth:`state_dict`.

        Raises
        ------
        ValueError
            If the averages belong to other parameters.
        """
        if mismatch := describe_mismatch(self.averages, state):
            raise ValueError(
                "the averaged parameters of the checkpoint are not those that this model trains: "
                f"{mismatch}. Use the config that it was trained with"
            )
        self._copy(state, self.averages)

    @staticmethod
    @torch.no_grad()
    def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])


def weight_average(model: nn.Module, ema: float | Mapping | None) -> WeightAverage | None:
    """Create the average that the setting ``train.ema`` describes.

    Parameters
    ----------
    model : nn.Module
        The model.
    ema : float, Mapping or None
        A decay, a mapping with decay and start, or None for no average.

    Returns
    -------
    WeightAverage or None
        The average.

    Raises
    ------
    ValueError
        If ``ema`` has another form.
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
