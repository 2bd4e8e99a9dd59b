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
    settings: AdapterSettings,
    *,
    description: str,
) -> Iterator[tuple[str, Factors]]:
    """Yield the name and the initial factors of every layer, the largest layers first.

    A stack of equal shapes keeps every thread, or a GPU, busy. Its factors equal those of each
    weight alone, bit for bit. The extra memory is that of one stack and of its decomposition.

    Parameters
    ----------
    layers : Mapping
    weight_of : Callable
        Returns the weight of a layer to decompose, shaped like ``layer.weight``.
    settings : AdapterSettings
    description : str
        Title of the progress bar.
    """
    function = INITIALISERS[settings.init]
    bar = tqdm(total=len(layers), desc=description, unit="layer", delay=1, leave=False)
    for names in _stacks(layers, settings.init):
        weights = torch.stack([weight_of(layers[name]) for name in names])
        factors = function(weights, settings.r_main, settings.r_sub, settings.scaling)
        del weights
        for i, name in enumerate(names):
            # Cloned, so that no layer keeps the whole stack in memory.
            yield name, Factors(*(None if f is None else f[i].clone() for f in factors))
            bar.update()
    bar.close()


def _stacks(layers: Mapping[str, nn.Module], init: str) -> Iterator[list[str]]:
    if init == "kaiming":  # random numbers are drawn in the order of the model
        yield from ([name] for name in layers)
        return
    groups: dict[tuple[torch.Size, torch.dtype, torch.device], list[str]] = {}
    for name, layer in layers.items():
        weight = layer.weight
        groups.setdefault((weight.shape, weight.dtype, weight.device), []).append(name)
    for (shape, dtype, _), names in sorted(groups.items(), key=lambda group: -group[0][0].numel()):
        size = shape.numel() * max(dtype.itemsize, 4)
        count = max(STACKED_BYTES // max(size, 1), torch.get_num_threads())
        for start in range(0, len(names), count):
            yield names[start : start + count]
