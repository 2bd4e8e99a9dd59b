"""Matplotlib figures of the measures, for light and dark pages."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recyclelora.adapters.trained_pair import TrainedPair
from recyclelora.data import CLASSES

from .measures import by_block
from .similarity import row_cosines

# The colours of Okabe and Ito, which colour-blind people can distinguish.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
KINDS = {"main": COLORS[0], "sub": COLORS[1], "both": COLORS[2]}


def _figure(
    width: float, height: float, columns: int = 1, rows: int = 1
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False)


def cosine_heatmaps(pairs: Mapping[str, TrainedPair]) -> Figure:
    """Draw Figure 3: absolute cosines of A's rows and B's columns, one row of heat maps per run.

    Parameters
    ----------
    pairs : Mapping
        The same layer of every run, by the name of the run.

    Returns
    -------
    Figure
        The figure.
    """
    figure, axes = _figure(8, 3.6 * len(pairs), columns=2, rows=len(pairs))
    for (run, pair), row in zip(pairs.items(), axes):
        factors = pair.factors.values()
        parts = {
            "rows of A": torch.cat([factor.A for factor in factors]),
            "columns of B": torch.cat([factor.B.T for factor in factors]),
        }
        for (title, rows), ax in zip(parts.items(), row):
            values = row_cosines(rows).abs().numpy()
            drawn = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
            ax.set_title(f"{run}: {title}")
            ax.set_xlabel("component (main, then sub)")
            ax.set_ylabel("component")
            figure.colorbar(drawn, ax=ax, label="|cosine similarity|", shrink=0.8)
    return figure


def subspace_blocks(runs: Mapping[str, Sequence[dict]]) -> Figure:
    """Draw Figure 4: similarity of main and sub per block, in the input and the output space.

    Parameters
    ----------
    runs : Mapping[str, Sequence[dict]]
        The layers of every run, see :func:`analyze_adapters`.

    Returns
    -------
    Figure
        The figure.
    """
    figure, axes = _figure(9, 3.4, columns=2)
    for space, ax in zip(("input", "output"), axes[0]):
        for color, (run, layers) in zip(COLORS, runs.items()):
            values = by_block(layers, space)
            random = by_block(layers, f"{space}_random")
            ax.plot(list(values), list(values.values()), "o-", color=color, label=run)
            ax.plot(list(random), list(random.values()), "--", color=color, label=f"{run}, random")
        ax.set_title(f"{space} space ({'rows of A' if space == 'input' else 'columns of B'})")
        ax.set_xlabel("block")
        ax.set_ylabel(r"subspace similarity $\phi$")
        ax.set_ylim(bottom=0)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(fontsize=8)
    return figure


def per_layer(runs: Mapping[str, Sequence[dict]], value: str, label: str) -> Figure:
    """Draw a value of each adapter for every layer.

    Parameters
    ----------
    runs : Mapping[str, Sequence[dict]]
        The layers of every run, see :func:`analyze_adapters`.
    value : str
        "moved", or a key of an adapter in :func:`analyze_adapters`.
    label : str
        Label of the axis.

    Returns
    -------
    Figure
        The figure.
    """
    figure, axes = _figure(9, 3.0 * len(runs), rows=len(runs))
    for (run, layers), ax in zip(runs.items(), axes[:, 0]):
        for kind, color in KINDS.items():
            points = [(i, _value(layer, kind, value)) for i, layer in enumerate(layers)]
            points = [(i, y) for i, y in points if y is not None]
            if points:
                ax.plot(*zip(*points), ".-", color=color, label=kind, linewidth=0.8)
        ax.set_title(run)
        ax.set_xlabel("adapted layer, in the order of the model")
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=8)
    return figure


def _value(layer: dict, kind: str, value: str) -> float | None:
    if value == "moved":
        return layer["moved"].get(kind)
    return layer.get(kind, {}).get(value)


def spectra(layers: Sequence[dict]) -> Figure:
    """Draw the absolute diagonal of R of every layer's W0, and mark the selected pivots.

    Parameters
    ----------
    layers : Sequence[dict]
        The layers of a run, see :func:`analyze_adapters`.

    Returns
    -------
    Figure
        The figure.
    """
    shapes = list(dict.fromkeys(tuple(layer["shape"]) for layer in layers))
    figure, axes = _figure(4.2 * len(shapes), 3.4, columns=len(shapes))
    for shape, ax in zip(shapes, axes[0]):
        own = [layer for layer in layers if tuple(layer["shape"]) == shape]
        for i, layer in enumerate(own):
            diagonal = np.array(layer["r_diag"])
            ax.semilogy(diagonal / max(diagonal[0], 1e-300), color="#999999", linewidth=0.6)
            if i == 0:
                _mark_ranks(ax, layer, len(diagonal))
        ax.set_title(f"{shape[0]} x {shape[1]}, {len(own)} layers")
        ax.set_xlabel("pivot")
        ax.set_ylabel(r"$|r_{ii}| / |r_{11}|$")
    return figure


def _mark_ranks(ax: Axes, layer: dict, length: int) -> None:
    if "sub" in layer:
        ax.axvspan(-0.5, layer["sub"]["rank"] - 0.5, color=KINDS["sub"], alpha=0.3, label="sub")
    if "main" in layer:
        first = length - layer["main"]["rank"]
        ax.axvspan(first - 0.5, length - 0.5, color=KINDS["main"], alpha=0.3, label="main")
    ax.legend(fontsize=8, loc="lower left")


def feature_grid(rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Draw Figure 5: the input and the principal components of the changes by main and by sub.

    Parameters
    ----------
    rows : Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
        For each image, the input and the two maps of colours.

    Returns
    -------
    Figure
        The figure.
    """
    figure, axes = _figure(9, 2.2 * len(rows) + 0.4, columns=3, rows=len(rows))
    titles = ("input", "change by main (PCA)", "change by sub (PCA)")
    for row, cells in zip(axes, rows):
        for ax, cell in zip(row, cells):
            ax.imshow(cell)
            ax.set_axis_off()
    for ax, title in zip(axes[0], titles):
        ax.set_title(title)
    return figure


def confusion_maps(runs: Mapping[str, Sequence[Sequence[int]]], domain: str) -> Figure:
    """Draw the confusion matrix of each run in one domain, in percent of each true class.

    Classes that occur neither in the truth nor in a prediction are left out. The last column
    contains predictions of classes that the domain does not label, if there are any.

    Parameters
    ----------
    runs : Mapping[str, Sequence[Sequence[int]]]
        The entry of the domain in ``confusion.json``, by the name of the run.
    domain : str
        The domain.

    Returns
    -------
    Figure
        The figure.
    """
    matrices = {run: np.array(counts) for run, counts in runs.items()}
    total = sum(matrices.values())
    truth, predicted = total.sum(axis=1) > 0, total.sum(axis=0) > 0
    predicted[:-1] |= truth
    columns = [name for name, occurs in zip((*CLASSES, "no label"), predicted) if occurs]
    rows = [name for name, occurs in zip(CLASSES, truth) if occurs]
    figure, axes = _figure(1.5 + 6.0 * len(runs), 5.4, columns=len(runs))
    for (run, counts), ax in zip(matrices.items(), axes[0]):
        shown = counts[truth][:, predicted]
        shares = 100 * shown / np.maximum(shown.sum(axis=1, keepdims=True), 1)
        drawn = ax.imshow(shares, cmap="cividis", vmin=0, vmax=100, interpolation="nearest")
        ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
        ax.set_yticks(range(len(rows)), rows, fontsize=8)
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")
        ax.set_title(f"{run}: {domain}")
        figure.colorbar(drawn, ax=ax, label="share of the true class (%)", shrink=0.8)
    return figure


def class_bars(runs: Mapping[str, dict], domain: str) -> Figure:
    """Draw the IoU of each class in one domain, with one bar per run.

    Parameters
    ----------
    runs : Mapping
        The content of ``domains.json`` by the name of the run.
    domain : str
        The domain.

    Returns
    -------
    Figure
        The figure.
    """
    figure, axes = _figure(9, 3.2)
    ax = axes[0, 0]
    names = [
        name
        for name in next(iter(runs.values()))["domains"][domain]["IoU"]
        if any(run["domains"][domain]["IoU"][name] is not None for run in runs.values())
    ]
    width = 0.8 / len(runs)
    for i, (color, (run, scores)) in enumerate(zip(COLORS, runs.items())):
        values = [scores["domains"][domain]["IoU"][name] or 0 for name in names]
        ax.bar(np.arange(len(names)) + i * width, values, width, color=color, label=run)
    ax.set_xticks(np.arange(len(names)) + 0.4 - width / 2, names, rotation=60, ha="right")
    ax.set_ylabel("IoU (%)")
    ax.set_title(domain)
    ax.legend(fontsize=8)
    return figure
