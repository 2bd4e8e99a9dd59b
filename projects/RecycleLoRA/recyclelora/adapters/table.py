"""An overview of an adapted model: its adapted layers, their sizes, and what is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from .layer import DualLoRALinear
from .state import adapted_layers
from .wrappers import plain_names

HEADERS = ("layer", "out x in", "main", "sub", "parameters", "trains")


@dataclass(frozen=True)
class AdapterRow:
    """One adapted layer.

    Attributes
    ----------
    name : str
        As in ``named_modules()`` of the model without wrappers.
    shape : (int, int)
        The weight's (out, in).
    r_main, r_sub : int
        Ranks of the active pair.
    parameters : int
        Number of values in the factors of the active pair, trainable or not.
    trains : tuple of str
        Which of "main", "sub" and "bias" require a gradient.
    """

    name: str
    shape: tuple[int, int]
    r_main: int
    r_sub: int
    parameters: int
    trains: tuple[str, ...]


@dataclass(frozen=True)
class AdapterTable:
    """The rows of :func:`adapter_table` and totals over the whole model.

    ``str()`` returns the table as text.

    Attributes
    ----------
    rows : tuple of AdapterRow
        The adapted layers in the order of the model.
    trainable, total : int
        Number of trainable parameters, and of all parameters, of the whole model. Shared parameters
        count once.
    others : tuple of str
        Names of trainable parameters outside the adapted layers, such as a head.
    pair : str
        Name of the active pair.
    """

    rows: tuple[AdapterRow, ...]
    trainable: int
    total: int
    others: tuple[str, ...]
    pair: str

    def __str__(self) -> str:
        cells = [
            [
                row.name or "(the model)",
                "{} x {}".format(*row.shape),
                str(row.r_main),
                str(row.r_sub),
                f"{row.parameters:,}",
                ", ".join(row.trains) or "-",
            ]
            for row in self.rows
        ]
        share = self.trainable / self.total if self.total else 0.0
        lines = [
            *_aligned([HEADERS, *cells], "<>>>><"),
            f"{len(self.rows)} adapted layers, pair {self.pair!r}; {self.trainable:,} of "
            f"{self.total:,} parameters train ({share:.2%})",
        ]
        if self.others:
            lines.append(f"trainable outside the adapted layers: {', '.join(self.others)}")
        return "\n".join(lines)


def adapter_table(model: nn.Module) -> AdapterTable:
    """List the adapted layers of a model with their shapes, ranks and trainable parameters.

    Parameters
    ----------
    model : nn.Module
        An adapted model, possibly wrapped by DDP or ``torch.compile``.

    Returns
    -------
    AdapterTable
        ``print()`` shows it as a table; ``rows`` holds the values.

    Raises
    ------
    ValueError
        If the model has no adapters.

    Examples
    --------
    >>> from recyclelora import adapt
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    >>> print(adapter_table(adapt(model, r_main=4, r_sub=2, ranks={"2": (3, 0)})))
    layer  out x in  main  sub  parameters  trains
    0       32 x 16     4    2         288  main, sub
    2       16 x 32     3    0         144  main
    2 adapted layers, pair 'default'; 432 of 1,504 parameters train (28.72%)
    """
    found = adapted_layers(model)
    plain = plain_names(model)
    layers = {plain[name]: layer for name, layer in found.items()}
    if not layers:
        raise ValueError("the model has no adapters to list: call adapt() first")
    inside = {id(p) for layer in layers.values() for p in layer.parameters()}
    parameters, others = list(model.parameters()), []
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in inside:
                others.append(f"{plain[name]}.{key}" if plain[name] else key)
    return AdapterTable(
        rows=tuple(_row(name, layer) for name, layer in layers.items()),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(p.numel() for p in parameters),
        others=tuple(others),
        pair=next(iter(layers.values())).pair_name,
    )


def _aligned(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Return lines with the columns aligned to the left (<) or to the right (>)."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, alignment, widths)
        ).rstrip()
        for row in rows
    ]


def _row(name: str, layer: DualLoRALinear) -> AdapterRow:
    def trains(keys: Sequence[str]) -> bool:
        found = (getattr(layer, key) for key in keys)
        return any(p is not None and p.requires_grad for p in found)

    factors = [p for key in layer.FACTORS if (p := getattr(layer, key)) is not None]
    parts = {"main": layer.FACTORS[:2], "sub": layer.FACTORS[2:], "bias": ("bias",)}
    return AdapterRow(
        name=name,
        shape=(layer.out_features, layer.in_features),
        r_main=layer.settings.r_main,
        r_sub=layer.settings.r_sub,
        parameters=sum(p.numel() for p in factors),
        trains=tuple(part for part, keys in parts.items() if trains(keys)),
    )
