"""Initial factors for all layers of a model: one weight per thread, or equal shapes at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..ops import StopFlag, rrqr_progress
from .initialisers import INITIALISERS, Factors, factor_dtype, one_hot_rows
from .settings import CUSTOM, AdapterSettings

# Size limit of a stack in float32 or float64. All equal layers of DINOv2-L fit.
STACKED_BYTES = 1 << 29


def decompose(weight: Tensor, settings: AdapterSettings, name: str = "this layer") -> Factors:
    """Return the initial factors of a weight, or of a stack of weights.

    The weight is not decomposed for an adapter of rank 0. If the initialisers of both adapters need
    the same decomposition, it is computed once. If the initialiser is a function, it receives a
    copy of one weight at a time.

    Parameters
    ----------
    weight : Tensor
        A weight (out, in), or a stack of weights (n, out, in).
    settings : AdapterSettings
        Settings of the adapters.
    name : str
        Name of the layer in error messages.

    Returns
    -------
    Factors
        The initial factors.

    Raises
    ------
    ValueError
        If a function fails or returns invalid factors. The message names the layer ``name``.
    """
    main, sub = settings.of_pair().sides
    if callable(settings.init):
        return _of_function(weight, settings, name)
    if CUSTOM in (main, sub):
        raise ValueError(
            f"init={CUSTOM!r} stands for the function that made the factors of a saved pair: load "
            "that pair, or pass the function"
        )
    ranks, scaling = (settings.r_main, settings.r_sub), settings.scaling
    if not settings.rank:
        return _without_rank(weight, settings)
    if main == sub:
        return INITIALISERS[main](weight, *ranks, scaling)
    first, second = INITIALISERS[main], INITIALISERS[sub]
    decomposed = first.decomposed(weight)
    factors = [first.function(decomposed, ranks[0], 0, scaling)]
    if first.decomposition is not second.decomposition:
        decomposed = second.decomposed(weight)
    factors.append(second.function(decomposed, 0, ranks[1], scaling))
    rows = [
        one_hot_rows(columns, weight.shape[-1], B) if A is None else A for A, B, columns in factors
    ]
    return Factors(torch.cat(rows, dim=-2), torch.cat([f.B for f in factors], dim=-1), None)


def initial_factors(
    layers: Mapping[str, nn.Module],
    weight_of: Callable[[nn.Module], Tensor],
    settings: Mapping[str, AdapterSettings],
    *,
    description: str,
) -> Iterator[tuple[str, Factors]]:
    """Return the name and the initial factors of every layer, the largest layers first.

    All factors are computed before the first is returned, so that no layer changes if a
    decomposition fails. For "rrqr" on the CPU each thread decomposes one weight at a time, whatever
    their shapes, so that no thread waits for another before the last weights. Otherwise weights of
    equal shape are decomposed as a stack, on a GPU at once. On the CPU the factors equal those of
    separate decompositions bit for bit. The additional memory is that of all factors, of one stack
    or one weight per thread, and of their decomposition.

    Parameters
    ----------
    layers : Mapping
        The layers by name.
    weight_of : Callable
        Returns the weight (out, in) of a layer to decompose.
    settings : Mapping
        The settings of each layer, by the same names.
    description : str
        Title of the progress bar.

    Returns
    -------
    Iterator[tuple[str, Factors]]
        Pairs of name and factors.
    """
    found: dict[str, Factors] = {}
    singles: list[str] = []
    with tqdm(total=len(layers), desc=description, unit="layer", delay=1, leave=False) as bar:
        for names in _stacks(layers, weight_of, settings):
            found |= dict.fromkeys(names)  # in this order
            first = weight_of(layers[names[0]])
            if settings[names[0]].one_hot and first.device.type == "cpu":
                singles += names
                continue
            weights = torch.stack([weight_of(layers[name]) for name in names])
            before = bar.n
            with rrqr_progress(lambda finished, total: bar.update()):
                factors = decompose(weights, settings[names[0]], f"layer {names[0]!r}")
            bar.update(len(names) - (bar.n - before))
            del weights
            for i, name in enumerate(names):
                # Clones, so that no layer keeps the whole stack in memory.
                found[name] = Factors(*(None if f is None else f[i].clone() for f in factors))
        for name, factors in _one_per_thread(
            singles, lambda name: (weight_of(layers[name]), settings[name], f"layer {name!r}")
        ):
            found[name] = factors
            bar.update()
    return ((name, found.pop(name)) for name in list(found))


def _one_per_thread(
    names: Iterable[str], arguments: Callable[[str], tuple[Tensor, AdapterSettings, str]]
) -> Iterator[tuple[str, Factors]]:
    """Yield names and factors in the order in which they finish; a thread decomposes one weight.

    After Ctrl-C or an error, the running decompositions end early and no other starts.
    """
    threads = torch.get_num_threads()
    waiting, running = deque(names), {}
    stop = StopFlag()

    def start_thread() -> None:
        torch.set_num_threads(1)
        stop.use()

    pool = ThreadPoolExecutor(threads, initializer=start_thread)
    try:
        while waiting or running:
            while waiting and len(running) < threads:
                name = waiting.popleft()
                running[pool.submit(_without_gradient, *arguments(name))] = name
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the threads have set it for all that start later


@torch.no_grad()
def _without_gradient(weight: Tensor, settings: AdapterSettings, name: str) -> Factors:
    # Grad mode belongs to a thread.
    return decompose(weight, settings, name)


def _stacks(
    layers: Mapping[str, nn.Module],
    weight_of: Callable[[nn.Module], Tensor],
    settings: Mapping[str, AdapterSettings],
) -> Iterator[list[str]]:
    groups: dict[tuple, list[str]] = {}
    for name, layer in layers.items():
        if settings[name].random:  # to draw random numbers in the order of the model
            yield [name]
            continue
        weight = weight_of(layer)
        key = (weight.shape, weight.dtype, weight.device, settings[name])
        groups.setdefault(key, []).append(name)
    for (shape, dtype, *_), names in sorted(groups.items(), key=lambda group: -group[0][0].numel()):
        size = shape.numel() * max(dtype.itemsize, 4)
        count = max(STACKED_BYTES // max(size, 1), torch.get_num_threads())
        for start in range(0, len(names), count):
            yield names[start : start + count]


def _without_rank(weight: Tensor, settings: AdapterSettings) -> Factors:
    *stack, out_features, in_features = weight.shape
    dtype = factor_dtype(weight)
    B = weight.new_zeros(*stack, out_features, 0, dtype=dtype)
    if settings.one_hot:
        return Factors(None, B, weight.new_zeros(*stack, 0, dtype=torch.int64))
    return Factors(weight.new_zeros(*stack, 0, in_features, dtype=dtype), B, None)


def _of_function(weight: Tensor, settings: AdapterSettings, name: str) -> Factors:
    if weight.dim() == 3:
        factors = [_of_function(one, settings, name) for one in weight]
        return Factors(*(None if f[0] is None else torch.stack(f) for f in zip(*factors)))
    empty = _without_rank(weight, settings)
    rows, columns = [empty.A], [empty.B]
    for side, rank in (("main", settings.r_main), ("sub", settings.r_sub)):
        if rank:
            A, B = _checked_factors(settings.init, weight, rank, side, name)
            rows.append(A)
            columns.append(B)
    return Factors(torch.cat(rows), torch.cat(columns, dim=1), None)


def _checked_factors(
    function: Callable, weight: Tensor, rank: int, side: str, name: str
) -> list[Tensor]:
    """Return A (r, in) and B (out, r) from a user's function for one adapter."""
    weight = weight.detach().to(factor_dtype(weight), copy=True)
    title = f"the init function {getattr(function, '__name__', type(function).__name__)}"
    where = f"for the {side} adapter of {name}"
    try:
        factors = function(weight, rank, side)
    except Exception as error:  # the user's function may raise any error
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{title} raised {type(error).__name__} ({reason}) {where}: expected "
            "f(weight, r, side) to return A and B"
        ) from error
    if not isinstance(factors, tuple | list) or len(factors) != 2:
        raise ValueError(
            f"{title} must return a pair (A, B) {where}, got {type(factors).__name__}: return "
            "A (r, in) and B (out, r)"
        )
    shapes = {"A": (rank, weight.shape[1]), "B": (weight.shape[0], rank)}
    for (key, shape), factor in zip(shapes.items(), factors):
        if not isinstance(factor, Tensor):
            raise ValueError(
                f"{title} must return tensors {where}, got {key} of type {type(factor).__name__}"
            )
        wanted = (shape, weight.dtype, weight.device, weight.layout)
        given = (tuple(factor.shape), factor.dtype, factor.device, factor.layout)
        if given != wanted:
            raise ValueError(
                f"{title} must return {key} of shape {shape}, {weight.dtype}, dense, on "
                f"{weight.device} {where}, got {given[0]}, {given[1]}, {given[3]}, on {given[2]}"
            )
        if not factor.is_meta and not torch.isfinite(factor).all():
            raise ValueError(
                f"{title} must return finite factors {where}, got {key} with NaN or Inf"
            )
    return [factor.detach() for factor in factors]
