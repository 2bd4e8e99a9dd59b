"""Intersection over union from a confusion matrix; foldings for sets that label fewer classes."""

import numpy as np
from detectron2.utils import comm

from recyclelora.data import IGNORE_LABEL, Folding


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs.

    A class absent from both truth and prediction is left out of the mean; one that is predicted
    but absent from the truth counts as 0. With a folding, predictions are first moved onto the
    labels that hold them, the ones without a home count as wrong, and classes the set does not
    label have no IoU at all.

    Args:
        num_classes: of truth and prediction.
        ignore_label: pixels with this truth are not counted.
        folding: of the 19 classes onto the set's labels.

    Attributes:
        counts: (num_classes, num_classes + 1) int64, rows truth, columns prediction; the last
            column holds predictions without a home.

    Example:
        >>> confusion = ConfusionMatrix(2)
        >>> confusion.update(np.array([[0, 1, 1]]), np.array([[0, 0, 1]]))
        >>> confusion.iou()
        array([0.5, 0.5])
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int = IGNORE_LABEL,
        folding: Folding | None = None,
    ) -> None:
        if folding is not None and len(folding.table) != num_classes:
            raise ValueError(
                f"folding '{folding.name}' folds {len(folding.table)} classes, the model has "
                f"{num_classes}; evaluate this set with a model of the Cityscapes classes"
            )
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self._homes = np.arange(num_classes) if folding is None else folding.table
        self.labelled = np.ones(num_classes, bool)
        if folding is not None:
            self.labelled[:] = False
            self.labelled[list(folding.label_ids)] = True
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count one image; both (H, W) integer class ids of the unfolded classes."""
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        if prediction.shape != truth.shape:
            raise ValueError(
                f"expected a prediction of the truth's size {truth.shape}, got {prediction.shape}; "
                "resize the logits to the label's size before the argmax"
            )
        counted = truth != self.ignore_label
        prediction, truth = prediction[counted], truth[counted]
        for what, ids in (("prediction", prediction), ("truth", truth)):
            if ids.size and (ids.min() < 0 or ids.max() >= self.num_classes):
                raise ValueError(
                    f"expected {what} ids 0..{self.num_classes - 1}, got "
                    f"{ids.min()}..{ids.max()}; check the label map or the number of classes"
                )
        size = self.num_classes
        pairs = np.bincount(truth.astype(np.int64) * size + prediction, minlength=size * size)
        pairs = pairs.reshape(size, size)
        foreign = np.flatnonzero((pairs.sum(1) > 0) & ~self.labelled)
        if foreign.size:
            raise ValueError(
                f"the truth has class {foreign[0]}, which this set's folding says it does not "
                f"label (it labels {np.flatnonzero(self.labelled).tolist()}); register the set "
                "with the folding it needs"
            )
        for predicted, home in enumerate(self._homes):
            self.counts[:, home] += pairs[:, predicted]

    def merge(self) -> "ConfusionMatrix":
        """Add up the counts of all processes, in every process; returns self."""
        self.counts = sum(comm.all_gather(self.counts))
        return self

    def iou(self) -> np.ndarray:
        """(num_classes,) float64 in 0..1; NaN where a class is not labelled or occurs nowhere."""
        hits, predicted, truth = self._sums()
        union = predicted + truth - hits
        known = self.labelled & (union > 0)
        return np.where(known, hits / np.maximum(union, 1), np.nan)

    def mean_iou(self) -> float:
        """Mean of ``iou`` over the classes that have one; NaN if none has."""
        return _mean(self.iou())

    def class_accuracy(self) -> np.ndarray:
        """(num_classes,) float64: share of a class's pixels that were found; NaN if it has none."""
        hits, _, truth = self._sums()
        return np.where(truth > 0, hits / np.maximum(truth, 1), np.nan)

    def pixel_accuracy(self) -> float:
        """Share of all counted pixels that are right; NaN if there are none."""
        total = int(self.counts.sum())
        return float(self._sums()[0].sum() / total) if total else float("nan")

    def constant_class_miou(self) -> float:
        """The highest mean IoU that predicting one and the same class everywhere would score.

        Only the truth's histogram enters, so any prediction's confusion matrix will do.
        """
        truth = self._sums()[2]
        present = np.count_nonzero(truth)
        return float(truth.max() / truth.sum() / present) if present else float("nan")

    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per class: right pixels, predicted pixels, pixels of the truth."""
        square = self.counts[:, : self.num_classes]
        return np.diag(square), square.sum(0), self.counts.sum(1)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
