"""Metrics, defined once: ties, empty positives, thresholds, and items among sampled ones.

All of users take scores (higher = more likely) and boolean labels of the same users. A task without
positives, or without negatives, has no value: NaN, which :func:`mean` leaves out and counts.

Recommendation ranks one positive item among others that are none. Its place is told by how many of
them score higher and how many the same (:class:`Places`); ties share places, so that a figure is
its expected value over random orders. HR@k: the share of positives among the best k. NDCG@k: the
mean of 1 / log2(1 + place) up to place k, since one positive's ideal is 1. MRR: of 1 / place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

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


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """ECE: mean gap of stated and actual share over bins of equal width, weighted by users."""
    at = np.minimum((probabilities * bins).astype(int), bins - 1)
    stated = np.bincount(at, probabilities, bins)
    actual = np.bincount(at, labels, bins)
    return float(np.abs(stated - actual).sum() / len(at))


def brier_skill(probabilities: np.ndarray, labels: np.ndarray, reference: np.ndarray) -> float:
    """1 − Brier score over that of ``reference``: 0 is as good, 1 is perfect."""
    score = float(np.square(probabilities - labels).mean())
    return 1 - score / max(float(np.square(reference - labels).mean()), 1e-12)


def interval_score(low: float, high: float, value: float, coverage: float = 0.8) -> float:
    """Width, and 2 / (1 − coverage) times how far outside the value lies (Gneiting, 2007)."""
    miss = max(0.0, low - value) + max(0.0, value - high)
    return high - low + 2 / (1 - coverage) * miss


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The score from which on saying yes gives the best F1; the highest of equally good ones."""
    if not labels.any():
        return float("inf")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    value = 2 * hits / (np.arange(1, len(order) + 1) + labels.sum())
    last = np.append(scores[order][:-1] != scores[order][1:], True)  # users tied go together
    return float(scores[order][np.argmax(np.where(last, value, -1.0))])


def f1(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """F1 of saying yes from ``threshold`` on; 0 when nobody said to be one is a positive."""
    if not labels.any():
        return float("nan")
    said = scores >= threshold
    return float(2 * (said & labels).sum() / (said.sum() + labels.sum()))


def accuracy(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """Share of users of whom yes from ``threshold`` on, and no below, is right."""
    return float(((scores >= threshold) == labels).mean()) if len(labels) else float("nan")


@dataclass(frozen=True)
class Places:
    """Where each of P positive items stands: how many others score higher, how many the same."""

    above: np.ndarray  # int [P]
    tied: np.ndarray  # int [P], without the positive itself

    @classmethod
    def among(cls, positives_P: np.ndarray, others_PM: np.ndarray) -> Places:
        """The places of ``positives_P`` among ``others_PM``; a NaN there is not a candidate."""
        scores_P1 = positives_P[:, None]
        return cls((others_PM > scores_P1).sum(1), (others_PM == scores_P1).sum(1))

    def hit_rate(self, k: int) -> np.ndarray:
        """HR@k of each positive, float [P]."""
        return np.clip((k - self.above) / (self.tied + 1), 0.0, 1.0)

    def ndcg(self, k: int) -> np.ndarray:
        """NDCG@k of each positive, float [P]."""
        return self._expected(lambda place: (place <= k) / np.log2(1.0 + place))

    def reciprocal(self) -> np.ndarray:
        """Reciprocal place of each positive, float [P]; MRR is their mean."""
        return self._expected(lambda place: 1.0 / place)

    def _expected(self, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Mean gain over the places that ties leave open: above + 1 … above + tied + 1."""
        last = self.above + self.tied + 1
        gains = gain(np.arange(1.0, last.max(initial=0) + 1))
        upto = np.concatenate([[0.0], np.cumsum(gains)])
        value: np.ndarray = (upto[last] - upto[self.above]) / (self.tied + 1)
        return value


def mean(values: Iterable[float]) -> float:
    """Mean over the tasks that have a value; NaN when none has."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _two_classes(labels: np.ndarray) -> bool:
    return bool(labels.any() and not labels.all())
