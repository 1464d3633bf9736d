"""What a good data scientist does by hand: count the same behaviour in the past.

The baselines are told which behaviour is meant; they read no sentence. Each behaviour has its own
count: baskets with the category (A, B), redeemed coupons (C), and for D the baskets (few of them
mean a lapse), the money spent, and how much less than usual was spent lately.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np

from feature_repo.transforms import micros
from ray_jobs.protocol import Protocol, Task

_FOREVER = 400
_TIE = 1e-6  # equal counts are ordered by overall recent activity,
_TIE_HALF_LIFE = 20.0  # in days; the best of 10 to 180 for new buyers at two earlier cut-offs

_OCCASIONS = {
    "basket": """SELECT user_id, coalesce(basket_id, event_id) AS basket, max(seen) AS moment,
                        1.0 AS size
                 FROM known_events WHERE source = 'bill' AND seen < $t GROUP BY user_id, basket""",
    "spend": """SELECT user_id, coalesce(basket_id, event_id) AS basket, max(seen) AS moment,
                       coalesce(sum(amount::DECIMAL(18, 4)), 0)::DOUBLE AS size
                FROM known_events WHERE source = 'bill' AND seen < $t GROUP BY user_id, basket""",
    "redemption": """SELECT user_id, exposure_id,
                            greatest(epoch_us(timestamp), epoch_us(known_at)) AS moment, 1.0 AS size
                     FROM exposures WHERE kind = 'redeemed' AND moment < $t""",
}


class Counts:
    """Scores of a task's users from counts known before the cut-off."""

    def __init__(self, protocol: Protocol):
        self._protocol = protocol
        self._kept: dict[tuple[str, float, int], dict[str, float]] = {}

    def past(self, task: Task) -> np.ndarray:
        """Count in 26 weeks, float64 [n]."""
        return self.within(task, 182)

    def recent(self, task: Task) -> np.ndarray:
        """Count that halves every 60 days, float64 [n]."""
        return self._score(task, half_life=60.0)

    def active(self, task: Task) -> np.ndarray:
        """Count that halves every 90 days times the like count of all baskets, float64 [n]."""
        activity = self._of(task, self._occasions("basket", 90.0))
        if task.group == "D":
            return self._score(task, half_life=90.0)
        return activity * (self._count(task, 90.0, _FOREVER) + _TIE)

    def within(self, task: Task, days: int) -> np.ndarray:
        """Count in the last ``days``, float64 [n]."""
        return self._score(task, half_life=np.inf, days=days)

    def _score(self, task: Task, half_life: float, days: int = _FOREVER) -> np.ndarray:
        activity = self._of(task, self._occasions("basket", _TIE_HALF_LIFE))
        sign = -1.0 if task.name == "lapse" else 1.0
        tie = _TIE * activity / (activity.max() + 1.0) if len(activity) else activity
        return self._count(task, half_life, days) + sign * tie

    def _count(self, task: Task, half_life: float, days: int) -> np.ndarray:
        if task.group in "AB":
            if np.isinf(half_life):
                return self._of(task, self._protocol.past_counts(task.name, days))
            return self._of(task, self._protocol.recency_weighted(task.name, half_life))
        if task.group == "C":
            return self._of(task, self._occasions("redemption", half_life, days))
        return _BEHAVIOURS[task.name](
            lambda kind, window: self._of(task, self._occasions(kind, half_life, window or days))
        )

    def _occasions(self, kind: str, half_life: float, days: int = _FOREVER) -> dict[str, float]:
        key = (kind, half_life, days)
        if key not in self._kept:
            cutoff = self._protocol.cutoff
            halving = f"0.5 ** (($t - moment) / {half_life * _DAY:f})"
            weight = "1.0" if np.isinf(half_life) else halving
            rows = self._protocol.con.sql(
                f"""SELECT user_id, sum(size * {weight}) FROM
                    (SELECT * FROM ({_OCCASIONS[kind]}) WHERE moment >= $since ORDER BY ALL)
                    GROUP BY user_id""",
                params={"t": micros(cutoff), "since": micros(cutoff - timedelta(days=days))},
            ).fetchall()
            self._kept[key] = {user: float(value) for user, value in rows}
        return self._kept[key]

    @staticmethod
    def _of(task: Task, values: dict[str, float]) -> np.ndarray:
        return np.array([values.get(user, 0.0) for user in task.users])


_DAY = 86_400_000_000
_Occasions = Callable[[str, int | None], np.ndarray]


def _below_usual(occasions: _Occasions) -> np.ndarray:
    """Who spent little lately, measured by their own habit, will spend more than that."""
    usual, lately = occasions("spend", None), occasions("spend", 28)
    return (usual - lately) / (usual + lately + 1.0)


_BEHAVIOURS: dict[str, Callable[[_Occasions], np.ndarray]] = {
    "lapse": lambda occasions: -occasions("basket", None),
    "top spend": lambda occasions: occasions("spend", None),
    "spend up": _below_usual,
}
