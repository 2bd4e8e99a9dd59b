"""Schedules of learning rate and weight decay as pure functions of the iteration.

A schedule has no state, so a resumed run continues exactly.
"""

import math

import torch

from recyclelora.common.validation import check_integer, check_number

WARMUP_START = 0.01


def poly(iteration: int, *, iterations: int, power: float = 0.9, warmup: int = 0) -> float:
    """Return the factor ``(1 - t / (T - 1)) ** power`` of the learning rate.

    The factor is 0 at the last iteration. During the first ``warmup`` iterations it increases
    linearly from 0.01 to 1; it then decreases as above over the remaining iterations.

    Parameters
    ----------
    iteration : int
        The iteration t, counted from 0.
    iterations : int
        The number T of iterations of the run.
    power : float
        The exponent.
    warmup : int
        The number of iterations during which the factor increases.

    Returns
    -------
    float
        The factor.

    Examples
    --------
    >>> poly(0, iterations=40_000), poly(39_999, iterations=40_000)
    (1.0, 0.0)
    """
    if iteration < warmup:
        return WARMUP_START + (1.0 - WARMUP_START) * iteration / max(warmup - 1, 1)
    iteration, iterations = iteration - warmup, iterations - warmup
    if iterations < 2:
        return 1.0
    return (1.0 - min(iteration, iterations - 1) / (iterations - 1)) ** power


def cosine(iteration: int, *, iterations: int) -> float:
    """Return the factor ``(1 + cos(pi t / T)) / 2``, constant from iteration ``T - 1`` on.

    Parameters
    ----------
    iteration : int
        The iteration t, counted from 0.
    iterations : int
        The number T of iterations of the run.

    Returns
    -------
    float
        The factor.
    """
    return (1.0 + math.cos(math.pi * min(iteration, iterations - 1) / iterations)) / 2.0


class Poly:
    """Poly learning rate ``initial_lr * poly(t)``; the weight decay is not changed.

    Parameters
    ----------
    iterations : int
        The number T of iterations of the run.
    power : float
        The exponent of the poly schedule.
    warmup : int
        The number of initial iterations during which the learning rate increases.
    """

    def __init__(self, *, iterations: int, power: float = 0.9, warmup: int = 0):
        check_integer("the schedule's iterations", iterations, least=1)
        check_number("the schedule's power", power, most=100)
        check_integer("the schedule's warmup", warmup)
        self.iterations = iterations
        self.power = power
        self.warmup = warmup

    def __call__(self, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        """Set the learning rate of every group for ``iteration``, counted from 0."""
        factor = poly(iteration, iterations=self.iterations, power=self.power, warmup=self.warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


class PolyWithAnnealedDecay(Poly):
    """The published schedule: a poly learning rate and a cosine for the weight decay.

    At iteration t of T, for every parameter group::

        lr    = initial_lr * poly(t)
        decay = decay_end + (initial_weight_decay - decay_end) * cosine(t)

    As published, this applies to every group: a weight decay of 0 ends at ``decay_end``.

    Parameters
    ----------
    iterations, power, warmup
        See :class:`Poly`.
    decay_end : float
        The weight decay that the cosine approaches.
    """

    def __init__(
        self, *, iterations: int, power: float = 0.9, decay_end: float = 1e-5, warmup: int = 0
    ):
        super().__init__(iterations=iterations, power=power, warmup=warmup)
        check_number("the schedule's decay_end", decay_end, most=1e3)
        self.decay_end = decay_end

    def __call__(self, optimizer: torch.optim.Optimizer, iteration: int) -> None:
        """Set learning rate and weight decay of every group for ``iteration``, counted from 0."""
        super().__call__(optimizer, iteration)
        anneal = cosine(iteration, iterations=self.iterations)
        for group in optimizer.param_groups:
            span = group["initial_weight_decay"] - self.decay_end
            group["weight_decay"] = self.decay_end + span * anneal
