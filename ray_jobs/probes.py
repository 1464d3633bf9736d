"""Linear probes: what a frozen vector knows, by the fixed protocol of docs/decisions/protocol.md.

Vectors are scaled by one global number (z-scoring each dimension drowns PCA-like vectors at these
sizes; ``evaluation.probe_table`` tells the fused ones both ways), an L2 logistic regression is
fitted on 20 % of a task's population with C chosen by 3-fold cross-validation, and scored on the
other 80 %, over stratified splits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedShuffleSplit

from ray_jobs import metrics
from ray_jobs.protocol import Task

# By halves of a decade: the best of rankings often lies between two decades, .007 above both.
_STRENGTHS = np.logspace(-5, 0, 11).tolist()
# A fold of a rare task has two or three positives: their ranking (AUC) picks a C at random.
_CRITERION = "neg_log_loss"
_FIT_SHARE = 0.2
_FOLDS = 3


class Model(Protocol):
    """What is fitted on a frozen vector."""

    def fit(self, x: np.ndarray, labels: np.ndarray) -> Any: ...


def probe(
    vectors: np.ndarray,
    users: Sequence[str],
    tasks: Sequence[Task],
    *,
    splits: int = 5,
    model: Callable[[], Model] | None = None,
) -> dict[str, dict[str, float]]:
    """Mean AUC, KS and precision@k (k = number of positives) per group of tasks.

    Args:
        vectors: float [N, D], rows in the order of ``users``. A user without one gets the mean.
        splits: stratified splits, seeds 0 … splits - 1.
        model: what is fitted instead of the logistic regression, e.g. boosted trees.
    """
    centred = vectors - vectors.mean(0)
    scaled = centred / (centred.std() or 1.0)
    position = {user: row for row, user in enumerate(users)}
    results: dict[str, list[tuple[float, ...]]] = {}
    for task in tasks:
        x = np.stack([
            scaled[position[user]] if user in position else np.zeros(scaled.shape[1])
            for user in task.users
        ])  # fmt: skip
        each = [_fit_and_score(x, task.labels, seed, model or _linear) for seed in range(splits)]
        results.setdefault(task.group, []).append(
            tuple(metrics.mean(values) for values in zip(*each, strict=True))
        )
    return _grouped(results)


def _linear() -> LogisticRegressionCV:
    return LogisticRegressionCV(
        Cs=_STRENGTHS, cv=_FOLDS, scoring=_CRITERION, max_iter=500, l1_ratios=(0.0,),
        use_legacy_attributes=False, tol=1e-3,
    )  # fmt: skip


def _fit_and_score(
    x: np.ndarray, labels: np.ndarray, seed: int, model: Callable[[], Model]
) -> tuple[float, ...]:
    if min(labels.sum(), (~labels).sum()) * _FIT_SHARE < _FOLDS:
        return (float("nan"),) * len(_FIGURES)  # too few of one class to cross-validate on
    split = StratifiedShuffleSplit(1, train_size=_FIT_SHARE, random_state=seed)
    fit, rest = next(split.split(x, labels))
    if model is _linear and x.shape[1] > len(fit):
        x = _rotated(x, fit)
    fitted = model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(x[fit], labels[fit])
    scores = _scores(fitted, x[rest])
    return tuple(figure(scores, labels[rest]) for figure in _FIGURES.values())


def _rotated(x: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """``x`` in the span of the fitted rows: a ridge solution lies there, so nothing changes.

    More columns than rows cost time and say nothing more: [N, D] → [N, rows of fit].
    """
    _, _, basis = np.linalg.svd(x[fit], full_matrices=False)
    rotated: np.ndarray = x @ basis.T
    return rotated


def _scores(fitted: Any, x: np.ndarray) -> np.ndarray:
    if hasattr(fitted, "decision_function"):
        scores: np.ndarray = fitted.decision_function(x)
    else:
        scores = fitted.predict_proba(x)[:, 1]
    return scores


_FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": metrics.auc, "ks": metrics.ks, "precision_at_k": metrics.precision_at,
}  # fmt: skip


def _grouped(results: Mapping[str, list[tuple[float, ...]]]) -> dict[str, dict[str, float]]:
    grouped: dict[str, dict[str, float]] = {}
    for group, values in results.items():
        means = [metrics.mean(column) for column in zip(*values, strict=True)]
        grouped[group] = {**dict(zip(_FIGURES, means, strict=True)), "tasks": len(values)}
    return grouped
