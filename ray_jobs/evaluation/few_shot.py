"""A sentence and a few seed users: ours and every baseline on the same seeds (FOUND Table 3).

A trial asks for every task of groups A and B by the category's name, or in other words as the
service reads them (another wording at each draw), with seeds drawn anew for each draw. Seeds are
left out of the ranking, for every method alike; a task counts while at least half of either sort of
users is left. Hard negatives are drawn among those whom the sentence alone would have picked first.

Shapes: U users of the snapshot, N of a task, K draws, D width of the space, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from encoders.query import QueryEncoder
from encoders.rewriting import as_it_stands
from ray_jobs import metrics
from ray_jobs.evaluation import zero_shot
from ray_jobs.evaluation.bootstrap import Resamples, difference
from ray_jobs.evaluation.demands import WORDINGS
from ray_jobs.evaluation.few_shot_methods import (
    OURS,
    SENTENCE,
    Demand,
    Method,
    Seeds,
    methods,
    token_methods,
)
from ray_jobs.protocol import Task

FEW = 5
"""Seeds of each sort in Table 3, and with hard negatives."""
COUNTS = (FEW, 10, 25, 100)
"""Seeds of each sort along the curve."""
HARD_POOL = 100
"""Hard negatives are drawn from so many users who score highest and did not do it."""
COMPARED = ("precision_at_k", "auc")
"""Figures in which ours is compared with each method, household by household."""
SHOWN = ("auc", "precision_at_k", "accuracy", "precision", "recall")
_ALL = "all"  # tasks of both groups


@dataclass(frozen=True)
class Trial:
    """In whose words is asked, and with how many seeds of each sort."""

    wording: str
    seeds: int
    hard: bool = False

    @property
    def name(self) -> str:
        """Tells one trial from another, also on disk."""
        return f"{self.wording} {self.seeds}{' hard' if self.hard else ''}"

    def num_draws(self, draws: int) -> int:
        """Table 3 and hard negatives have all draws, the rest of the curve half as many."""
        return draws if self.seeds == FEW else max(1, draws // 2)


def trials(wordings: Iterable[str] = WORDINGS) -> list[Trial]:
    """All of them, the curve before hard negatives."""
    return [
        trial
        for wording in wordings
        for trial in (*(Trial(wording, n) for n in COUNTS), Trial(wording, FEW, hard=True))
    ]


@dataclass(frozen=True)
class Ground:
    """What all trials share.

    Args:
        vectors_UD: in the order of ``users``, who include everybody in ``tasks``.
        written: task name → its demand in other words.
        rates: task key → share of users that the threshold lets in (``zero_shot.base_rates``).
    """

    encoder: QueryEncoder
    vectors_UD: np.ndarray
    users: Sequence[str]
    tasks: Sequence[Task]
    written: Mapping[str, Sequence[str]]
    rates: Mapping[str, float]

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Every method by name."""
        given = self.encoder, self.vectors_UD
        return {**methods(*given), **token_methods(*given)}

    @cached_property
    def rows(self) -> list[np.ndarray]:
        """Where the users of each task are in the vectors, [N] per task."""
        position = {user: row for row, user in enumerate(self.users)}
        return [np.array([position[user] for user in task.users]) for task in self.tasks]

    @cached_property
    def resamples(self) -> Resamples:
        """Households drawn once for all trials and methods, so that differences are paired."""
        return Resamples(self.users)

    @cached_property
    def asked(self) -> dict[str, list[list[Demand]]]:
        """Wording → the demands of each task, which draws take in turn; none if nobody wrote any.

        A category's name stands as it is, other words as the service reads them.
        """
        names = [task.sentence or "" for task in self.tasks]
        return {
            "name": [[Demand(name, as_it_stands(name))] for name in names],
            "paraphrase": [
                [Demand(text, self.encoder.read(text)) for text in self.written.get(task.name, [])]
                for task in self.tasks
            ],
        }


def measure(ground: Ground, trial: Trial, method: str, draws: int) -> dict[str, Any]:
    """Figures of a method on every task, and their means over tasks in every resample.

    Returns:
        ``rows``, one per task, means over draws; ``resampled``: group, or "all" → figure → [R].
    """
    rows: list[dict[str, Any]] = []
    drawn: dict[str, list[dict[str, np.ndarray]]] = {}
    for number, task in enumerate(ground.tasks):
        if not ground.asked[trial.wording][number] or not has_seeds(task, trial.seeds):
            continue
        seeds, scores_KN = _ranked(ground, trial, number, method, draws)
        rate = ground.rates.get(zero_shot.key(task), float("nan"))
        each, resampled = [], []
        for one, scores_N in zip(seeds, scores_KN, strict=True):
            left = np.setdiff1d(np.arange(len(task.labels)), one.all)
            scores, labels = scores_N[left], task.labels[left]
            each.append(zero_shot.figures(scores, labels, rate))
            resampled.append(_resampled(ground.resamples, scores, labels, task.users[left]))
        means = {name: metrics.mean(one[name] for one in each) for name in zero_shot.FIGURES}
        rows.append({"group": task.group, "task": task.name, **means})
        mean_R = {name: np.mean([one[name] for one in resampled], 0) for name in COMPARED}
        for group in (task.group, _ALL):
            drawn.setdefault(group, []).append(mean_R)
    return {
        "rows": rows,
        "resampled": {
            group: {name: np.round(np.nanmean([one[name] for one in each], 0), 6)
                    for name in COMPARED}
            for group, each in drawn.items()
        },
    }  # fmt: skip


def has_seeds(task: Task, seeds: int) -> bool:
    """Whether at least half of either sort of users is left without the seeds."""
    return bool(min(task.labels.sum(), (~task.labels).sum()) >= 2 * seeds)


def _resampled(
    resamples: Resamples, scores: np.ndarray, labels: np.ndarray, users: np.ndarray
) -> dict[str, np.ndarray]:
    given = scores, labels, users.tolist()
    return {"precision_at_k": resamples.precision(*given), "auc": resamples.auc(*given)}


def _ranked(
    ground: Ground, trial: Trial, number: int, method: str, draws: int
) -> tuple[list[Seeds], np.ndarray]:
    """The seeds of each draw and everybody's scores, [K, N]; demands take draws in turn."""
    users_ND, labels = ground.vectors_UD[ground.rows[number]], ground.tasks[number].labels
    asked = ground.asked[trial.wording][number]
    seeds = [draw(labels, (one, number), trial.seeds) for one in range(draws)]
    if trial.hard:
        likely = [ground.methods[SENTENCE](demand, users_ND, seeds[:1])[0] for demand in asked]
        seeds = [
            draw(labels, (one, number), trial.seeds, hard_scores=likely[one % len(asked)])
            for one in range(draws)
        ]
    scores_KN = np.zeros((draws, len(labels)))
    for first, demand in enumerate(asked):
        if ones := list(range(first, draws, len(asked))):
            given = [seeds[one] for one in ones]
            scores_KN[ones] = ground.methods[method](demand, users_ND, given)
    return seeds, scores_KN


def draw(
    labels: np.ndarray, seed: Sequence[int], num: int, *, hard_scores: np.ndarray | None = None
) -> Seeds:
    """Seed users of one draw, ``num`` of each sort, at random.

    Args:
        hard_scores: draw the negatives from the :data:`HARD_POOL` highest of these.
    """
    rng = np.random.default_rng(list(seed))
    positives = rng.choice(np.flatnonzero(labels), num, replace=False)
    others = np.flatnonzero(~labels)
    if hard_scores is not None:
        others = others[np.argsort(-hard_scores[others], kind="stable")[:HARD_POOL]]
    return Seeds(positives, rng.choice(others, num, replace=False))


def summary(measured: Mapping[str, dict[str, Any]], ours: dict[str, Any]) -> dict[str, Any]:
    """Method → its means per group, and what ours is ahead by: figures and 95 % intervals."""
    found: dict[str, Any] = {}
    for name, one in measured.items():
        groups = {group: _rows(one, group) for group in one["resampled"] if group != _ALL}
        found[name] = {
            group: {"tasks": len(rows), **{figure: _mean(rows, figure) for figure in SHOWN}}
            for group, rows in groups.items()
        }
        if groups and name != OURS:
            found[name]["ours minus this"] = against(ours, one)
    return found


def against(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Group, or "all" → figure → how far ours is ahead: the mean, and its interval over households.

    The mean is that of the households as they are. Precision@k of a resample is another thing,
    since who is in it twice takes two of the k places.
    """
    return {
        group: {
            name: {
                **difference(ours["resampled"][group][name], theirs["resampled"][group][name]),
                "mean": _mean(_rows(ours, group), name) - _mean(_rows(theirs, group), name),
            }
            for name in COMPARED
        }
        for group in theirs["resampled"]
    }


def _rows(measured: dict[str, Any], group: str) -> list[dict[str, Any]]:
    return [row for row in measured["rows"] if group in (row["group"], _ALL)]


def _mean(rows: Sequence[dict[str, Any]], figure: str) -> float:
    """Results come back from disk, where None stands for what has no value."""
    return metrics.mean(float("nan") if row[figure] is None else row[figure] for row in rows)
