"""Analyze one or several runs, and write JSON, figures and a report (``tools/analyze.py``)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from tqdm import tqdm

from recyclelora.adapters import adapted_layers
from recyclelora.adapters.trained_pair import TrainedPair, trained_pair
from recyclelora.common.atomic_write import atomic_write, write_json
from recyclelora.data import read_image
from recyclelora.engine.build import build_run
from recyclelora.engine.media_files import find_photographs

from . import figures
from .features import block_path, change_colors
from .measures import analyze_adapters
from .report import Report, overall_tables
from .scores import Scores, paired_difference, read_scores

logger = logging.getLogger(__name__)
MOST_IMAGES = 8  # rows in the figure of feature changes


@dataclass(frozen=True)
class Run:
    """A run to analyze.

    Attributes
    ----------
    weights : str
        A checkpoint, or a file that ``tools/export_trained.py`` wrote.
    config_file : str
        The config of the run: a path, or the name of a shipped config.
    overrides : Sequence[str]
        The overrides ``key=value`` of the run.
    """

    weights: str
    config_file: str
    overrides: Sequence[str] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        """Folder and stem of the weights, as the label of the run in figures."""
        path = Path(self.weights)
        return f"{path.parent.name}/{path.stem}" if path.parent.name else path.stem

    @classmethod
    def from_words(cls, words: Sequence[str], config_file: str) -> "Run":
        """Return the run that an option ``--against`` describes: weights, a config and overrides.

        Parameters
        ----------
        words : sequence of str
            The words of the option.
        config_file : str
            The config if ``words`` does not contain one.

        Returns
        -------
        Run
            The run.

        Raises
        ------
        ValueError
            If there are several configs.
        """
        weights, *rest = words
        configs = [word for word in rest if "=" not in word]
        if len(configs) > 1:
            raise ValueError(
                "--against must have at most one config after the weights, got "
                f"{', '.join(configs)}"
            )
        overrides = [word for word in rest if "=" in word]
        return cls(weights, configs[0] if configs else config_file, overrides)


def label_runs(runs: Sequence[Run]) -> dict[str, Run]:
    """Return runs by their names. If a name occurs again, a number is appended.

    Parameters
    ----------
    runs : Sequence[Run]
        The runs.

    Returns
    -------
    dict[str, Run]
        The runs by name.
    """
    labelled: dict[str, Run] = {}
    for number, run in enumerate(runs, start=1):
        labelled[run.name if run.name not in labelled else f"{run.name} ({number})"] = run
    return labelled


def analyze_runs(
    runs: Sequence[Run], *, output: Path, images: Path | None = None, block: int | None = None
) -> Path:
    """Analyze the adapters of each run and compare the runs.

    The function writes ``analysis.json``, ``figures/NAME.png`` and ``.svg``, and ``report.html`` to
    ``output``, each atomically. If the folders of all runs contain ``domains.json`` and
    ``images.json``, the scores are compared too. With ``confusion.json``, confusion matrices are
    drawn.

    Parameters
    ----------
    runs : sequence of Run
        The first run is the reference of all comparisons.
    output : Path
        The folder to write to.
    images : Path, optional
        A photograph, or a folder of photographs, for the feature changes of the first run.
    block : int, optional
        The block of the feature changes, by default the last one.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    ValueError
        If a run has no adapters, or if its weights belong to another model.
    """
    photographs = _photographs(images) if images is not None else []
    cpu = torch.device("cpu")
    results, shown, pictures = {}, {}, []
    for number, (label, run) in enumerate(label_runs(runs).items()):
        model, _, _ = build_run(run.config_file, run.overrides, run.weights, device=cpu)
        model.eval()
        results[label] = analyze_adapters(model)
        last, layer = list(adapted_layers(model).items())[-1]
        shown[label] = trained_pair(last, layer)
        if number == 0 and photographs:
            pictures = _feature_rows(model, photographs, block)
        del model
    scores = _scores(dict(zip(results, runs)))
    drawn = _figures(results, shown, pictures, scores)
    comparison = _comparison(scores)
    write_json(output / "analysis.json", {"runs": results, "scores": comparison})
    for name, figure in drawn.items():
        _save(figure, output / "figures", name)
    with atomic_write(output / "report.html") as temporary:
        temporary.write_text(_report(results, drawn, comparison), encoding="utf-8")
    return output / "report.html"


def _photographs(images: Path) -> list[np.ndarray]:
    files = list(find_photographs([images]).values())
    if len(files) > MOST_IMAGES:
        logger.info("%s: using the first %d of %d images", images, MOST_IMAGES, len(files))
    return [read_image(file) for file in files[:MOST_IMAGES]]


def _feature_rows(
    model: nn.Module, photographs: Sequence[np.ndarray], block: int | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return, for each photograph, the input and the colours of the changes by main and by sub."""
    path = block_path(model.backbone, block)
    rows = []
    for pixels in tqdm(photographs, "features", unit="image", delay=1, leave=False):
        image, colors = change_colors(model, pixels, path)
        rows.append((image, *colors.values()))
    return rows


def _scores(runs: Mapping[str, Run]) -> dict[str, Scores]:
    """Return the scores of each run, or nothing if a run lacks them."""
    found = {}
    for name, run in runs.items():
        folder = Path(run.weights).parent
        scores = read_scores(folder)
        if scores is None:
            logger.info("scores are not compared: %s has no evaluation", folder)
            return {}
        found[name] = scores
    return found


def _comparison(scores: Mapping[str, Scores]) -> dict:
    """Return the paired differences to the first run, for each other run and each common domain."""
    names = list(scores)
    result: dict = {}
    for other in names[1:]:
        first, second = scores[names[0]].images, scores[other].images
        result[other] = {
            domain: paired_difference(first[domain], second[domain])
            for domain in first
            if domain in second
        }
    return result


def _figures(
    results: Mapping[str, dict],
    shown: Mapping[str, TrainedPair],
    pictures: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    scores: Mapping[str, Scores],
) -> dict[str, Figure]:
    layers = {run: found["layers"] for run, found in results.items()}
    first = next(iter(results))
    drawn = {"cosines": figures.cosine_heatmaps(shown)}
    dual = {run: own for run, own in layers.items() if any("subspace" in one for one in own)}
    if dual:
        drawn["subspaces"] = figures.subspace_blocks(dual)
    drawn["efficiency"] = figures.per_layer(layers, "efficiency", "effective rank / r")
    drawn["moved"] = figures.per_layer(layers, "moved", "change / norm of W0")
    drawn["spectra"] = figures.spectra(layers[first])
    if pictures:
        drawn["features"] = figures.feature_grid(pictures)
    domains = {run: own.domains for run, own in scores.items()}
    for domain in domains[first]["domains"] if domains else ():
        if all(domain in own["domains"] for own in domains.values()):
            drawn[f"classes {domain}"] = figures.class_bars(domains, domain)
        if all(domain in own.confusion for own in scores.values()):
            counts = {run: own.confusion[domain] for run, own in scores.items()}
            drawn[f"confusion {domain}"] = figures.confusion_maps(counts, domain)
    return drawn


CAPTIONS = {
    "cosines": "Figure 3: cosine similarity within the last adapted layer.",
    "subspaces": "Figure 4: similarity of main and sub per block, compared to random subspaces.",
    "efficiency": "Effective rank of each update divided by its rank.",
    "moved": "Change of each update relative to the pretrained weight.",
    "spectra": "Diagonal of R of every layer of the first run, with the selected pivots.",
    "features": "Figure 5: principal components of the feature changes by main and by sub.",
}


def _caption(figure: str) -> str:
    """Return the caption of a figure; one of a domain is called "classes" or "confusion"."""
    kind, _, domain = figure.partition(" ")
    if kind == "classes":
        return f"IoU of each class, {domain}."
    if kind == "confusion":
        return f"Confusion matrix, {domain}: predictions for the pixels of each true class."
    return CAPTIONS[figure]


def _report(results: Mapping[str, dict], drawn: Mapping[str, Figure], comparison: dict) -> str:
    report = Report("What the adapters learned")
    overall_tables(report, results)
    report.section("Figures")
    for name, figure in drawn.items():
        report.figure(figure, _caption(name))
    for run, domains in comparison.items():
        report.section(
            f"{run} against {next(iter(results))}",
            "Difference in the mean mIoU of single images, in percentage points, with the 95 % "
            "interval of a paired bootstrap over images.",
        )
        rows = [[domain, *found.values()] for domain, found in domains.items()]
        report.table(["domain", "difference", "low", "high", "images"], rows)
    return report.html()


def _save(figure: Figure, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "svg"):
        file = folder / f"{name.replace(' ', '_').replace('/', '_')}.{suffix}"
        with atomic_write(file) as temporary:
            figure.savefig(temporary, format=suffix, dpi=150)
