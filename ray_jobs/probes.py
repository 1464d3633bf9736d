"""Linear probes: what a frozen vector knows, by the fixed protocol of docs/decisions/protocol.md.

Vectors are scaled by one global number (z-scoring each dimension drowns PCA-like vectors at these
sizes), an L2 logistic regression is fitted on 20 % of a task's population with C chosen by 3-fold
cross-validation, and scored on the other 80 %, over stratified splits.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedShuffleSplit

from ray_jobs import metrics
from ray_jobs.protocol import Task

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_FIT_SHARE = 0.2
_FOLDS = 3


def probe(
    vectors: np.ndarray, users: Sequence[str], tasks: Sequence[Task], *, splits: int = 5
) -> dict[str, dict[str, float]]:
    """Mean AUC and KS per group of tasks.

    Args:
        vectors: float [N, D], rows in the order of ``users``. A user without one gets the mean.
        splits: stratified splits, seeds 0 … splits - 1.
    """
    centred = vectors - vectors.mean(0)
    scaled = centred / (centred.std() or 1.0)
    position = {user: row for row, user in enumerate(users)}
    results: dict[str, list[tuple[float, float]]] = {}
    for task in tasks:
        x = np.stack([
            scaled[position[user]] if user in position else np.zeros(scaled.shape[1])
            for user in task.users
        ])  # fmt: skip
        pairs = [_fit_and_score(x, task.labels, seed) for seed in range(splits)]
        results.setdefault(task.group, []).append(
            (metrics.mean(a for a, _ in pairs), metrics.mean(k for _, k in pairs))
        )
    return _grouped(results)


def _fit_and_score(x: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    if min(labels.sum(), (~labels).sum()) * _FIT_SHARE < _FOLDS:
        return float("nan"), float("nan")  # too few of one class to cross-validate on
    split = StratifiedShuffleSplit(1, train_size=_FIT_SHARE, random_state=seed)
    fit, rest = next(split.split(x, labels))
    model = LogisticRegressionCV(
        Cs=list(_STRENGTHS), cv=_FOLDS, scoring="roc_auc", max_iter=500, l1_ratios=(0.0,),
        use_legacy_attributes=False, tol=1e-3,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[fit], labels[fit])
    scores = model.decision_function(x[rest])
    return metrics.auc(scores, labels[rest]), metrics.ks(scores, labels[rest])


def _grouped(results: Mapping[str, list[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    return {
        group: {
            "auc": metrics.mean(auc for auc, _ in values),
            "ks": metrics.mean(ks for _, ks in values),
            "tasks": len(values),
        }
        for group, values in results.items()
    }
