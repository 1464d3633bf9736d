"""The same counts for who is not told what is meant: they are asked for what a demand is read as.

Reader, subjects and shares are ours; users are counted instead of embedded. So what stands between
such a count and ours, on the same sentence, is what the vectors have learnt.

Shapes: U all users of the protocol, N users of a task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from encoders import templates
from encoders.catalogue import OUTCOME, Catalogue
from encoders.rewriting import Reading
from ray_jobs.evaluation.zero_shot import Scorer
from ray_jobs.protocol import Task

_OUTCOMES = {"coupon": ("C", "coupon"), "nothing": ("D", "lapse"), "a lot": ("D", "top spend"),
             "more": ("D", "spend up")}  # fmt: skip
"""Outcome of the model → the protocol's task with the same count."""
_WEEKS = range(1, 9)


class ReadCounts:
    """Scores a demand by a count of each subject it is read as, weighted by the reading's shares.

    Counts of different subjects are of different size: each is divided by its deviation over all
    users, as the mixture of sentences is made of scores of like spread.

    Args:
        read: demand → its reading, as the service has it.
        catalogue: the subjects that readings are made of.
        count: task → count of its users, float64 [N].
        everyone: a task of all users.
    """

    def __init__(
        self,
        read: Callable[[str], Reading],
        catalogue: Catalogue,
        count: Scorer,
        everyone: Task,
        *,
        horizon_days: int,
    ):
        self._read = read
        self._position = {user: row for row, user in enumerate(everyone.users)}
        self._meant = {s.sentence(horizon_days=horizon_days): ("A", s.name)
                       for s in catalogue.headings}  # fmt: skip
        for outcome in (s.name for s in catalogue.subjects if s.kind == OUTCOME):
            self._meant |= {
                templates.outcome_sentence(outcome, horizon_days=7 * weeks): _OUTCOMES[outcome]
                for weeks in _WEEKS
            }

        @lru_cache(None)
        def scaled(group: str, name: str) -> np.ndarray:
            found_U = count(replace(everyone, group=group, name=name))
            return np.asarray(found_U / (float(found_U.std()) or 1.0))

        self._scaled = scaled

    def score(self, task: Task) -> np.ndarray:
        """The reading's counts together, float64 [N]; all alike where nothing read is counted."""
        total_U = np.zeros(len(self._position))
        for sentence, share in self._read(task.sentence or "").sentences:
            if (meant := self._meant.get(sentence)) is not None:
                total_U += share * self._scaled(*meant)
        return total_U[[self._position[user] for user in task.users]]
