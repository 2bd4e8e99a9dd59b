"""Intersection over union from a confusion matrix, also for datasets with fewer classes."""

import numpy as np
from detectron2.utils import comm

from recyclelora.data import IGNORE_LABEL, Folding


class ConfusionMatrix:
    """Confusion matrix of truth and prediction.

    A class absent from both truth and prediction is excluded from the mean. A class that is
    predicted but absent from the truth has an IoU of 0. With a folding, each predicted class is
    replaced by the label of the dataset that contains it. Predictions without such a label count as
    wrong, and classes that the dataset does not label have no IoU.

    Parameters
    ----------
    num_classes : int
        The number of classes of truth and prediction.
    ignore_label : int
        The truth value of pixels that are not counted.
    folding : Folding, optional
        The folding of the 19 classes onto the labels of the dataset.

    Attributes
    ----------
    counts : ndarray
        Counts (num_classes, num_classes + 1), int64. Rows are the truth and columns the
        prediction. The last column counts predictions without a label.

    Examples
    --------
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
        self._labels = np.arange(num_classes) if folding is None else folding.table
        self.labelled = np.ones(num_classes, bool)
        if folding is not None:
            self.labelled[:] = False
            self.labelled[list(folding.label_ids)] = True
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count the pixels of one image.

        Parameters
        ----------
        prediction, truth : ndarray
            Class ids (H, W) before folding.
        """
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
                f"the truth has class {foreign[0]}, which this set does not label according to its "
                f"folding (it labels {np.flatnonzero(self.labelled).tolist()}); register the set "
                "with the folding it needs"
            )
        for predicted, label in enumerate(self._labels):
            self.counts[:, label] += pairs[:, predicted]

    def merge(self) -> "ConfusionMatrix":
        """Sum the counts over all processes; every process gets the sums.

        Returns
        -------
        ConfusionMatrix
            This matrix.
        """
        self.counts = sum(comm.all_gather(self.counts))
        return self

    def iou(self) -> np.ndarray:
        """Return the IoU of each class as float64.

        Returns
        -------
        ndarray
            The IoU (num_classes,); NaN for a class that is not labelled or does not occur.
        """
        hits, predicted, truth = self._sums()
        union = predicted + truth - hits
        known = self.labelled & (union > 0)
        return np.where(known, hits / np.maximum(union, 1), np.nan)

    def mean_iou(self) -> float:
        """Return the mean of :meth:`iou` over the classes that have an IoU.

        Returns
        -------
        float
            The mean, from 0 to 1, or NaN if no class has an IoU.
        """
        iou = self.iou()
        iou = iou[~np.isnan(iou)]  # nanmean would sum in another order
        return float(iou.mean()) if iou.size else float("nan")

    def class_accuracy(self) -> np.ndarray:
        """Return the recall of each class as float64.

        Returns
        -------
        ndarray
            The recall (num_classes,); NaN for a class without pixels.
        """
        hits, _, truth = self._sums()
        return np.where(truth > 0, hits / np.maximum(truth, 1), np.nan)

    def pixel_accuracy(self) -> float:
        """Return the share of the counted pixels whose prediction is correct.

        Returns
        -------
        float
            The share, from 0 to 1, or NaN if no pixel was counted.
        """
        total = int(self.counts.sum())
        return float(self._sums()[0].sum() / total) if total else float("nan")

    def constant_class_miou(self) -> float:
        """Return the highest mean IoU that a prediction of one class everywhere can reach.

        It depends only on the histogram of the truth, not on the counted predictions.

        Returns
        -------
        float
            The mean IoU, from 0 to 1, or NaN if no pixel was counted.
        """
        truth = self._sums()[2]
        present = np.count_nonzero(truth)
        return float(truth.max() / truth.sum() / present) if present else float("nan")

    def _sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the number of right, predicted and true pixels of each class."""
        square = self.counts[:, : self.num_classes]
        return np.diag(square), square.sum(0), self.counts.sum(1)
