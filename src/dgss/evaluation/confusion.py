"""Scores from one integer matrix: labels against predictions, counted over a whole set.

Rules where the field differs: counts are int64; a class in neither labels nor predictions is left out of the mean; one
that is predicted but never labelled counts 0; a stray value is an error, never a silent loss of points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dgss.errors import DataError
from dgss.labels import IGNORE, LabelSpace

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


class Confusion:
    """Counts of (label, prediction) pairs; `matrix` (K, K) int64, rows label, columns prediction."""

    def __init__(self, labels: LabelSpace | int) -> None:
        self.classes = labels if isinstance(labels, int) else len(labels)
        self.matrix: Counts = np.zeros((self.classes, self.classes), np.int64)

    def add(self, label: NDArray[np.integer], prediction: NDArray[np.integer], where: str = "this image") -> None:
        """Counts one image: label and prediction (H, W), any integers; pixels labelled 255 do not enter.

        Raises `DataError`, naming `where`, on a label or a prediction that is no class; nothing is counted then.
        """
        if label.shape != prediction.shape:
            raise DataError(f"{where}: labels of {label.shape}, prediction of {prediction.shape}; resize one first")
        if not label.size:
            return
        for name, values in (("label", label), ("prediction", prediction)):
            if values.min() < 0 or values.max() > 255:
                raise DataError(f"{where}: {name} values {values.min()}..{values.max()} do not fit 0..255")
        # one 16-bit key a pixel, 256 wide: ignored pixels fall in row 255 and need no mask
        key = label.astype(np.uint16) << np.uint16(8) | prediction.astype(np.uint16)
        table = np.bincount(key.ravel(), minlength=65536).reshape(256, 256)
        self._check(table, where)
        self.matrix += table[: self.classes, : self.classes]

    def merge(self, other: Confusion) -> None:
        """Adds the counts of another set over the same classes."""
        if other.classes != self.classes:
            raise DataError(f"counts of {other.classes} classes do not add to counts of {self.classes}")
        self.matrix += other.matrix

    def iou(self) -> Shares:
        """Intersection over union a class, (K,) in [0, 1]; NaN where neither labelled nor predicted."""
        hit, labelled, predicted = self._sums()
        return _share(hit, labelled + predicted - hit)

    def miou(self, present_only: bool = False) -> float:
        """Mean of `iou` over the classes that occur; `present_only`: only those that are labelled, as detectron2."""
        iou, labelled = self.iou(), self.matrix.sum(1) > 0
        counted = labelled if present_only else ~np.isnan(iou)
        return float(iou[counted].mean()) if counted.any() else float("nan")

    def recall(self) -> Shares:
        """Share of a class's labelled pixels that are found, (K,); the field's "accuracy" of a class."""
        hit, labelled, _ = self._sums()
        return _share(hit, labelled)

    def mean_recall(self) -> float:
        """Mean of `recall` over the classes that are labelled; the field's "mAcc"."""
        recall = self.recall()
        return float(np.nanmean(recall)) if not np.isnan(recall).all() else float("nan")

    def precision(self) -> Shares:
        """Share of a class's predicted pixels that are right, (K,)."""
        hit, _, predicted = self._sums()
        return _share(hit, predicted)

    def pixel_accuracy(self) -> float:
        """Share of all labelled pixels that are right; the field's "aAcc"."""
        return float(_share(np.trace(self.matrix)[None], self.matrix.sum()[None])[0])

    def _sums(self) -> tuple[Counts, Counts, Counts]:
        return np.diag(self.matrix), self.matrix.sum(1), self.matrix.sum(0)

    def _check(self, table: Counts, where: str) -> None:
        # under an ignored label any prediction may stand
        for name, counts in (("label", table[:IGNORE].sum(1)), ("prediction", table[: self.classes].sum(0))):
            stray = np.flatnonzero(counts[self.classes :]) + self.classes
            if stray.size:
                value = int(stray[0])
                raise DataError(
                    f"{where}: {name} value {value} in {counts[value]} pixels is none of the {self.classes} classes "
                    f"(0..{self.classes - 1}, 255 ignored); map it first"
                )


def _share(part: Counts, whole: Counts) -> Shares:
    share = np.full(part.shape, np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share
