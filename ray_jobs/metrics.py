"""Ranking metrics, defined once: ties, empty positives and precision at k.

All take scores (higher = more likely) and boolean labels of the same users. A task without
positives, or without negatives, has no value: NaN, which :func:`mean` leaves out and counts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve; ties count half."""
    return float(roc_auc_score(labels, scores)) if _two_classes(labels) else float("nan")


def ks(scores: np.ndarray, labels: np.ndarray) -> float:
    """Kolmogorov–Smirnov: largest gap between true and false positive rate."""
    if not _two_classes(labels):
        return float("nan")
    false_rate, true_rate, _ = roc_curve(labels, scores)
    return float(np.max(true_rate - false_rate))


def precision_at(scores: np.ndarray, labels: np.ndarray, k: int | None = None) -> float:
    """Share of positives among the ``k`` best (default: as many as there are positives).

    Users tied at the cut share the remaining places: the expected value over random orders.
    """
    positives = int(labels.sum())
    k = positives if k is None else min(k, len(labels))
    if k == 0 or positives == 0:
        return float("nan")
    cut = np.sort(scores)[::-1][k - 1]
    above, tied = scores > cut, scores == cut
    expected = labels[above].sum() + (k - above.sum()) * labels[tied].mean()
    return float(expected / k)


def lift_at(scores: np.ndarray, labels: np.ndarray, share: float) -> float:
    """Precision in the best ``share`` of the population over the base rate."""
    k = max(1, round(share * len(labels)))
    base = labels.mean()
    return precision_at(scores, labels, k) / base if base > 0 else float("nan")


def mean(values: Iterable[float]) -> float:
    """Mean over the tasks that have a value; NaN when none has."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _two_classes(labels: np.ndarray) -> bool:
    return bool(labels.any() and not labels.all())
