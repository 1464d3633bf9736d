"""Lookalikes: what a list of seed users is worth beside a sentence, by how many they are.

For every task the seeds are drawn among those who did it; they are left out of the ranking, for
both methods alike. Whoever has such a list knows them from elsewhere: a campaign, a shop's own
records. Shapes as in :mod:`encoders.lookalike`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from encoders.lookalike import likeness, power_of
from encoders.posterior import Population
from ray_jobs import metrics
from ray_jobs.evaluation.methods import sentence
from ray_jobs.evaluation.subject import Subject
from ray_jobs.protocol import Task

SEEDS = (5, 10, 25, 100)
DRAWS = 5
_GROUPS = "ABCD"


def measure(subject: Subject, *, power: float | None = None, draws: int = DRAWS) -> dict[str, Any]:
    """Group → method → AUC and precision@k, for each number of seeds.

    A task counts where at least twice as many users did it as there are seeds.

    Args:
        power: of the inverse covariance; default as the service has it.
    """
    place = {user: row for row, user in enumerate(subject.users)}
    asked = [task for task in subject.tasks if task.group in _GROUPS and task.sentence]
    vectors = subject.vectors("fused")
    powers = {count: power_of(count) if power is None else power for count in SEEDS}
    populations = {p: Population.of(vectors, power=p) for p in set(powers.values())}
    score = sentence(subject)
    by_sentence = {(task.group, task.name): score(task) for task in asked}
    found: dict[str, Any] = {}
    for group in _GROUPS:
        rows: dict[str, Any] = {}
        for count in SEEDS:
            tasks = [t for t in asked if t.group == group and t.labels.sum() >= 2 * count]
            if tasks:
                rows[str(count)] = _compared(
                    tasks, [vectors[[place[u] for u in t.users]] for t in tasks],
                    [by_sentence[t.group, t.name] for t in tasks], populations[powers[count]],
                    count, draws,
                )  # fmt: skip
        if rows:
            found[group] = rows
    return found


def _compared(
    tasks: Sequence[Task], vectors: Sequence[np.ndarray], by_sentence: Sequence[np.ndarray],
    population: Population, count: int, draws: int,
) -> dict[str, Any]:  # fmt: skip
    told: dict[str, list[tuple[float, float]]] = {"seeds": [], "sentence": []}
    for number, (task, users_ND, words_N) in enumerate(
        zip(tasks, vectors, by_sentence, strict=True)
    ):
        for draw in range(draws):
            rng = np.random.default_rng([draw, number, count])
            seeds = rng.choice(np.flatnonzero(task.labels), count, replace=False)
            left = np.setdiff1d(np.arange(len(task.labels)), seeds)
            likeness_N = users_ND @ likeness(users_ND[seeds], population)
            for name, scores in (("seeds", likeness_N), ("sentence", words_N)):
                told[name].append((
                    metrics.auc(scores[left], task.labels[left]),
                    metrics.precision_at(scores[left], task.labels[left]),
                ))  # fmt: skip
    return {
        "tasks": len(tasks),
        **{name: {"auc": metrics.mean(a for a, _ in pairs),
                  "precision_at_k": metrics.mean(p for _, p in pairs)}
           for name, pairs in told.items()},
    }  # fmt: skip
