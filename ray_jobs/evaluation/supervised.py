"""The reference: one gradient-boosted model per task, trained on that task's own past outcomes.

It needs what a demand in words does not come with, labels, so it is no competitor but a mark of
what can be foreseen. Trained at four earlier cut-offs whose outcomes are known by now, with all
households; a new buyer (B) is scored by the model of the category. It reads all that is counted by
hand: RFM, how often each category was bought, and all about the category at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import duckdb
import lightgbm
import numpy as np

from ray_jobs.evaluation.history import Receipts
from ray_jobs.evaluation.results import NotMeasured
from ray_jobs.protocol import CATEGORIES, Protocol, Task

SHIFTS = 4
_DAYS = 28
_COUPON_DAYS = 56
_PARAMETERS: dict[str, Any] = {
    "n_estimators": 200, "learning_rate": 0.03, "num_leaves": 7, "min_child_samples": 40,
    "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.3, "reg_lambda": 5.0,
    "n_jobs": 1, "random_state": 0, "verbose": -1, "deterministic": True, "force_row_wise": True,
}  # fmt: skip
"""The best of three at an earlier cut-off (docs/log.md)."""


class Supervised:
    """Scores of tasks at ``cutoff`` by models of their earlier outcomes."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, cutoff: datetime, receipts: Receipts,
        categories: Sequence[str] = CATEGORIES,
    ):  # fmt: skip
        self._con, self._cutoff, self._receipts = con, cutoff, receipts
        self._categories = categories
        self._models: dict[str, Any] = {}
        self._shared: dict[datetime, tuple[dict[str, int], np.ndarray]] = {}

    def score(self, task: Task) -> np.ndarray:
        """Log-odds of the task's users, float [n]; NotMeasured without any earlier outcome."""
        if task.name not in self._models:
            self._models[task.name] = self._fitted(task)
        x = self._features(task, self._cutoff, list(task.users))
        scores: np.ndarray = self._models[task.name].predict(x, raw_score=True)
        return scores

    def _fitted(self, task: Task) -> Any:
        earlier = self._earlier.get(task.name)
        if earlier is None:
            raise NotMeasured(f"no outcome of {task.name} is known before {self._cutoff:%Y-%m-%d}")
        x = np.concatenate([self._features(task, when, list(t.users)) for when, t in earlier])
        labels = np.concatenate([t.labels for _, t in earlier])
        model = lightgbm.LGBMClassifier(**_PARAMETERS)
        # Without names on either side, as scikit-learn would otherwise warn at each prediction.
        return model.fit(x, labels).booster_

    @cached_property
    def _earlier(self) -> dict[str, list[tuple[datetime, Task]]]:
        """Task name → the same task at earlier cut-offs, with outcomes known by now.

        Cut-offs before anybody was known have no users, and tell nothing.
        """
        found: dict[str, list[tuple[datetime, Task]]] = {}

        def keep(when: datetime, task: Task) -> None:
            if len(task.users):
                found.setdefault(task.name, []).append((when, task))

        for shift in range(SHIFTS):
            when = self._cutoff - timedelta(days=_DAYS * (shift + 1))
            longer = self._cutoff - timedelta(days=_COUPON_DAYS + _DAYS * shift)
            protocol = Protocol(self._con, when, categories=self._categories)
            for task in (*protocol.purchases(), *protocol.behaviours()):
                keep(when, task)
            keep(longer, Protocol(self._con, longer).coupon())
        return found

    def _features(self, task: Task, when: datetime, users: Sequence[str]) -> np.ndarray:
        position, everyone = self._everyone(when)
        features = everyone[[position[user] for user in users]]
        if task.group not in "AB":
            return features
        return np.concatenate([features, self._receipts.own(task.name, when, users)], 1)

    def _everyone(self, when: datetime) -> tuple[dict[str, int], np.ndarray]:
        """Row of each user at a cut-off, and the features that all tasks share; made once."""
        if when not in self._shared:
            users = [str(user) for user in Protocol(self._con, when).everyone]
            position = {user: row for row, user in enumerate(users)}
            features = [
                self._receipts.rfm(when, users), self._receipts.category_counts(when, users),
            ]  # fmt: skip
            self._shared[when] = position, np.concatenate(features, 1).astype(np.float32)
        return self._shared[when]
