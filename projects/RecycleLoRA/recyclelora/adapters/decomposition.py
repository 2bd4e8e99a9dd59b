"""Initial factors for all layers of a model; weights of equal shape are decomposed together."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .initialisers import INITIALISERS, Factors
from .settings import AdapterSettings

# Size limit of a stack, counted in float32 or wider: all equal layers of DINOv2-L fit.
STACKED_BYTES = 1 << 29


def initial_factors(
    layers: Mapping[str, nn.Module],
    weight_of: Callable[[nn.Module], Tensor],
    settings: Mapping[str, AdapterSettings],
    *,
    description: str,
) -> Iterator[tuple[str, Factors]]:
    """Yield the name and the initial factors of every layer, the largest layers first.

    A stack of equal shapes keeps every thread, or a GPU, busy. On the CPU its factors equal those
    of each weight alone bit for bit. The extra memory is that of one stack and of its
    decomposition.

    Parameters
    ----------
    layers : Mapping
    weight_of : Callable
        Returns the weight (out, in) of a layer to decompose.
    settings : Mapping
        The settings of each layer, by the same names.
    description : str
        Title of the progress bar.
    """
    bar = tqdm(total=len(layers), desc=description, unit="layer", delay=1, leave=False)
    for names in _stacks(layers, weight_of, settings):
        weights = torch.stack([weight_of(layers[name]) for name in names])
        own = settings[names[0]]
        factors = INITIALISERS[own.init](weights, own.r_main, own.r_sub, own.scaling)
        del weights
        for i, name in enumerate(names):
            # Cloned, so that no layer keeps the whole stack in memory.
            yield name, Factors(*(None if f is None else f[i].clone() for f in factors))
            bar.update()
    bar.close()


def _stacks(
    layers: Mapping[str, nn.Module],
    weight_of: Callable[[nn.Module], Tensor],
    settings: Mapping[str, AdapterSettings],
) -> Iterator[list[str]]:
    groups: dict[tuple, list[str]] = {}
    for name, layer in layers.items():
        if settings[name].init == "kaiming":  # random numbers are drawn in the order of the model
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
