"""Zero-shot targeting: one sentence ranks a task's whole population (FOUND Table 2, Figure 6).

Every method scores the same users of the same tasks. AUC, KS and precision@k (k = number of
positives) need no threshold; precision, recall and lift are given for the best 1, 5 and 10 %.

Accuracy, precision and recall in the paper's kind need one. It is fixed without a look at any
outcome from the cut-off on: as many users are chosen as did the thing eight weeks before, that is
the threshold is the score's quantile at the base rate of the earlier period. (Scores of an earlier
date would need weights trained before it; the snapshot's own have seen those outcomes.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_jobs import metrics
from ray_jobs.evaluation.bootstrap import Resamples, difference
from ray_jobs.evaluation.demands import Demand
from ray_jobs.evaluation.results import NotMeasured
from ray_jobs.protocol import Protocol, Task

Scorer = Callable[[Task], np.ndarray]
"""A task with its sentence → score of each of its users, [n], higher = more likely."""

SHARES = (0.01, 0.05, 0.10)
OURS = "sentence"
FIGURES = (
    "auc", "ks", "precision_at_k", "accuracy", "precision", "recall",
    *(f"{name}_{round(100 * share)}" for share in SHARES for name in ("precision", "recall",
                                                                     "lift")),
)  # fmt: skip


@dataclass(frozen=True)
class Method:
    """One way to score users."""

    name: str
    score: Scorer
    reads: bool  # the sentence; the others are told which behaviour is meant
    is_count: bool = False  # one of those that ours must beat


def measure(
    method: Method, demands: Iterable[Demand], resamples: Resamples, rates: dict[str, float]
) -> dict[str, Any]:
    """Figures of a method per wording and task, and its mean AUC per group in every resample.

    A task that the method cannot score (:class:`NotMeasured`) has no row.

    Args:
        rates: task key (see :func:`key`) → share of users to choose.
    """
    rows: list[dict[str, Any]] = []
    drawn: dict[str, dict[str, list[np.ndarray]]] = {}
    known: dict[str, tuple[dict[str, float], np.ndarray]] = {}
    for demand in demands:
        task, name = demand.task, key(demand.task)
        if method.reads or name not in known:  # who reads no sentence says the same to all
            asked = demand.asked if method.reads else demand.asked[:1]
            try:
                scores = [method.score(task) for task in asked]
            except NotMeasured:
                continue
            each = [figures(s, task.labels, rates.get(name, float("nan"))) for s in scores]
            aucs = [resamples.auc(s, task.labels, task.users.tolist()) for s in scores]
            means = {figure: metrics.mean(one[figure] for one in each) for figure in FIGURES}
            known[name] = means, np.mean(aucs, 0)
        means, aucs_R = known[name]
        rows.append({"wording": demand.wording, "group": task.group, "task": task.name, **means})
        drawn.setdefault(demand.wording, {}).setdefault(task.group, []).append(aucs_R)
    return {
        "rows": rows,
        "resampled": {
            wording: {group: np.round(np.nanmean(each, 0), 5) for group, each in groups.items()}
            for wording, groups in drawn.items()
        },
    }


def figures(scores: np.ndarray, labels: np.ndarray, rate: float) -> dict[str, float]:
    """All figures of one ranking; ``rate`` is the share of users that the threshold lets in."""
    found = {
        "auc": metrics.auc(scores, labels),
        "ks": metrics.ks(scores, labels),
        "precision_at_k": metrics.precision_at(scores, labels),
        **at_threshold(scores, labels, rate),
    }
    positives = int(labels.sum())
    for share in SHARES:
        k, name = max(1, round(share * len(labels))), round(100 * share)
        precision = metrics.precision_at(scores, labels, k)
        found[f"precision_{name}"] = precision
        found[f"recall_{name}"] = precision * k / positives if positives else float("nan")
        found[f"lift_{name}"] = metrics.lift_at(scores, labels, share)
    return found


def at_threshold(scores: np.ndarray, labels: np.ndarray, rate: float) -> dict[str, float]:
    """Accuracy, precision and recall when the best ``rate`` of the users are chosen."""
    positives = int(labels.sum())
    if np.isnan(rate) or not positives:
        return dict.fromkeys(("accuracy", "precision", "recall"), float("nan"))
    k = max(1, round(rate * len(labels)))
    precision = metrics.precision_at(scores, labels, k)
    hits = precision * k
    wrong = (k - hits) + (positives - hits)
    return {
        "accuracy": 1 - wrong / len(labels), "precision": precision, "recall": hits / positives,
    }  # fmt: skip


def base_rates(earlier: Protocol) -> dict[str, float]:
    """Task key → share of its population that did it in the earlier period; none of nobody."""
    tasks = (
        *earlier.purchases(), *earlier.new_buyers(least=1), earlier.coupon(),
        *earlier.behaviours(),
    )  # fmt: skip
    return {key(task): float(task.labels.mean()) for task in tasks if len(task.users)}


def key(task: Task) -> str:
    """A task's identity over time."""
    return f"{task.group} {task.name}"


def left_out(measured: dict[str, dict[str, Any]], rates: dict[str, float]) -> list[str]:
    """What could not be told since the data begin too late for it, as sentences."""
    groups = {name: {row["group"] for row in one["rows"]} for name, one in measured.items()}
    told = []
    if not rates:
        told.append("Nobody was known eight weeks before: there is no threshold.")
    for name, its in groups.items():
        if missing := sorted(set().union(*groups.values()) - its):
            told.append(f"{name}: nothing of {', '.join(missing)}, no outcome of it is known yet.")
    return told


def table(measured: dict[str, dict[str, Any]], wording: str) -> dict[str, Any]:
    """Method → group → mean figures over tasks, with each task's row under ``each``."""
    found: dict[str, Any] = {}
    for name, result in measured.items():
        for row in result["rows"]:
            if row["wording"] == wording:
                found.setdefault(name, {}).setdefault(row["group"], []).append(row)
    return {
        name: {group: _summary(rows) for group, rows in groups.items()}
        for name, groups in found.items()
    }


def against_counts(
    measured: dict[str, dict[str, Any]], counts: Sequence[str], wording: str, *, ours: str = OURS
) -> dict[str, Any]:
    """Group → the best count there, and ``ours`` minus it: mean and 95 % interval of the AUC."""
    means = table(measured, wording)
    found: dict[str, Any] = {}
    for group in means.get(ours, {}):
        rivals = {name: means[name][group]["auc"] for name in counts if group in means[name]}
        if not rivals:
            continue
        best = max(rivals, key=lambda name: rivals[name])
        our_R, their_R = (
            np.array(measured[name]["resampled"][wording][group]) for name in (ours, best)
        )
        found[group] = {"best count": best, **difference(our_R, their_R)}
    return found


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    means = {
        name: metrics.mean(float("nan") if row[name] is None else row[name] for row in rows)
        for name in FIGURES
    }
    return {"tasks": len(rows), **means, "each": rows}
