"""What downstream models predict on Complete Journey: labels as of a snapshot's date.

Inputs are what was known strictly before the date; labels lie in the weeks that start at it. In the
paper's three kinds (4.2.3):

- *profiling*: group E of the protocol (kids, age 45+, income 75K+, married), where known. Labels
  come from the source, since the embeddings must come from a build that has not seen them.
- *targeting*: coupon use (56 days), lapse (14 days), and the first purchase ever in a department
  (56 days), asked of households that never bought there: a complete cold start.
- *recommendation*: product types that a household uses a coupon for (56 days), and those of its
  next basket (28 days). An item is known by its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from feature_repo.sources import complete_journey
from feature_repo.transforms import DAY_US, micros
from ray_jobs.downstream import Binary, Recommendation
from ray_jobs.evaluation.subject import Subject
from ray_jobs.one4all.logs import LENGTH, LogTable, tensors
from ray_jobs.protocol import Protocol, Task

Kind = Literal["profiling", "targeting", "recommendation"]
DEPARTMENTS = ("NUTRITION", "DELI")
_COUPON_DAYS = 56
_LAPSE_DAYS = 14
_BASKET_DAYS = 28
_FIRST_DAYS = 56


@dataclass(frozen=True)
class Downstream:
    """One task: whose, what is learnt, and the history that belongs to the task alone."""

    kind: Kind
    name: str
    users: np.ndarray  # str [N]
    objective: Binary | Recommendation
    task_log: LogTable | None = None

    @property
    def groups(self) -> np.ndarray:
        """What a split spreads evenly, int [N]: the labels, if there are any."""
        if isinstance(self.objective, Binary):
            return self.objective.labels_N.astype(np.int64)
        return np.zeros(len(self.users), np.int64)


class Tasks:
    """All tasks at one date; each is made when asked for.

    Args:
        lines: sentence vectors of the items' texts.
        profiles: the profiles that the embeddings have not seen; without, no task is about them.
        length: the latest events of a task's own log that are kept.
    """

    def __init__(
        self, protocol: Protocol, lines: Callable[[Sequence[str]], np.ndarray],
        profiles: pa.Table | None = None, *, length: int = LENGTH,
    ):  # fmt: skip
        self._protocol, self._lines, self._profiles = protocol, lines, profiles
        self._length = length
        self._con = protocol.con

    @classmethod
    def of(cls, subject: Subject, *, length: int = LENGTH) -> Tasks:
        """The tasks as of a snapshot's date."""
        return cls(subject.protocol, subject.lines, subject.profiles, length=length)

    def listed(self) -> dict[str, Callable[[], Downstream]]:
        """Name → task, in the order of the report."""
        found: dict[str, Callable[[], Downstream]] = {}
        labelled = Protocol(self._con, self._protocol.cutoff, self._profiles)
        for task in labelled.profiles():
            found[task.name] = partial(_binary, "profiling", task, task.name)
        left_out = self.left_out
        return found | {name: make for name, (_, make) in self._ahead().items()
                        if name not in left_out}  # fmt: skip

    @property
    def left_out(self) -> dict[str, int]:
        """Tasks whose horizon runs past the data, with its days."""
        ahead = {name: days for name, (days, _) in self._ahead().items()}
        return {name: days for name, days in ahead.items() if not self._protocol.reaches(days)}

    def _ahead(self) -> dict[str, tuple[int, Callable[[], Downstream]]]:
        """Tasks about the future: days of their labels, and the task."""

        def coupon() -> Downstream:
            return _binary("targeting", self._protocol.coupon(), "coupon use")

        def lapse() -> Downstream:
            return _binary("targeting", self._protocol.behaviours()[0], "lapse")

        first = {f"first purchase in {department}": (_FIRST_DAYS, partial(self.first_purchase,
                 department)) for department in DEPARTMENTS}  # fmt: skip
        return {
            "coupon use": (_COUPON_DAYS, coupon), "lapse": (_LAPSE_DAYS, lapse), **first,
            "coupon recommendation": (_COUPON_DAYS, self.coupons),
            "next basket": (_BASKET_DAYS, self.next_basket),
        }  # fmt: skip

    def known_labels(self, users: Sequence[str]) -> dict[str, list[str | None]]:
        """Profile column → each user's value; None where it is not known."""
        if self._profiles is None:
            return {}
        rows = (self._profiles[name].to_pylist() for name in ("user_id", "categorical"))
        known = {user: dict(values) for user, values in zip(*rows, strict=True)}
        return {
            name: [known.get(user, {}).get(name) for user in users]
            for name in ("age", "kids_count")
        }

    def first_purchase(self, department: str) -> Downstream:
        """Buys in a department, among those of whom no purchase there is known."""
        rows = self._con.sql(
            """SELECT user_id, bool_or(seen < $now) AS before,
                      bool_or(epoch_us(timestamp) >= $now AND epoch_us(timestamp) < $end) AS buys
            FROM known_events JOIN items USING (item_id)
            WHERE source = 'bill' AND categories[1] = $department GROUP BY user_id""",
            params={"department": department, **self._span(_FIRST_DAYS)},
        ).fetchall()
        before = {user for user, before, _ in rows if before}
        buys = {user for user, _, buys in rows if buys}
        users = np.array([u for u in self._protocol.everyone if u not in before], object)
        labels = np.array([user in buys for user in users], bool)
        return Downstream(
            "targeting", f"first purchase in {department}", users, Binary(labels)
        )  # fmt: skip

    def coupons(self) -> Downstream:
        """Types of the products that a household uses a coupon for."""
        future = self._con.sql(
            f"""SELECT user_id, type FROM ({_TYPES}) WHERE moment >= $now AND moment < $end
            AND channel = 'coupon' GROUP BY ALL ORDER BY ALL""",
            params=self._span(_COUPON_DAYS),
        ).to_arrow_table()  # fmt: skip
        return self._recommendation("coupon recommendation", future, "channel = 'coupon'")

    def next_basket(self) -> Downstream:
        """Types of the products in the next basket."""
        future = self._con.sql(
            f"""SELECT user_id, type FROM (
                SELECT *, first_value(basket_id)
                       OVER (PARTITION BY user_id ORDER BY moment, basket_id) AS next
                FROM ({_TYPES}) WHERE moment >= $now AND moment < $end)
            WHERE basket_id = next GROUP BY user_id, type ORDER BY ALL""",
            params=self._span(_BASKET_DAYS),
        ).to_arrow_table()
        return self._recommendation("next basket", future, "true")

    def _recommendation(self, name: str, future: pa.Table, condition: str) -> Downstream:
        """Who took something, of all items that anybody had taken by then."""
        history = self._history(condition)
        known = set(self._protocol.everyone)
        users = sorted(set(future["user_id"].to_pylist()) & known)
        types = sorted({*future["type"].to_pylist(), *history["type"].to_pylist()})
        words = [complete_journey.readable(each) for each in types]
        taken = np.zeros((len(users), len(types)), bool)
        row = {user: n for n, user in enumerate(users)}
        item = {each: n for n, each in enumerate(types)}
        for user, each in zip(*(future[n].to_pylist() for n in ("user_id", "type")), strict=True):
            if user in row:
                taken[row[user], item[each]] = True
        text = pa.array([words[item[each]] for each in history["type"].to_pylist()], pa.string())
        log = history.select(["user_id", "moment"]).append_column("text", text)
        objective = Recommendation(taken, torch.from_numpy(self._lines(words)))
        users_N = np.array(users, object)
        own = tensors(log, users, length=self._length)
        return Downstream("recommendation", name, users_N, objective, own)

    def _history(self, condition: str) -> pa.Table:
        """What was taken before, a type once a day: user_id, moment, type; oldest first."""
        return self._con.sql(
            f"""SELECT user_id, min(moment) AS moment, type FROM ({_TYPES})
            WHERE seen < $now AND {condition} GROUP BY user_id, type, moment // {DAY_US}
            ORDER BY user_id, moment, type""",
            params={"now": micros(self._protocol.cutoff)},
        ).to_arrow_table()

    def _span(self, days: int) -> dict[str, int]:
        now = micros(self._protocol.cutoff)
        return {"now": now, "end": now + days * DAY_US}


def _binary(kind: Kind, task: Task, name: str) -> Downstream:
    return Downstream(kind, name, task.users, Binary(task.labels))


_TYPES = """SELECT user_id, epoch_us(timestamp) AS moment, seen, basket_id, channel,
                   categories[-1] AS type
            FROM known_events JOIN items USING (item_id)
            WHERE source = 'bill' AND len(categories) > 0"""
