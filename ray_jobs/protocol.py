"""The measuring protocol: which behaviours, whose, and what counts as a hit.

Five groups of tasks at a cut-off T: A buys a category, B buys it for the first time in 26 weeks,
C redeems a coupon, D overall behaviour, E profile (docs/decisions/protocol.md). Features may use
what was known strictly before T; labels lie in the horizon that starts at T.

On Complete Journey the categories are :data:`CATEGORIES`, and group E knows its profiles. Other
data are asked for their own most frequent headings (:func:`frequent_headings`), for C if they have
coupons, for spending if they have prices, and never for E.

Complete Journey's final cut-off is :data:`FINAL_CUTOFF`. Choose everything on earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import duckdb
import numpy as np
import pyarrow as pa

from feature_repo.errors import TimeError
from feature_repo.transforms import data_span, horizon_known, micros, users_before

FINAL_CUTOFF = datetime(2017, 11, 6)

CATEGORIES = (
    "CHEESE", "COLD CEREAL", "FROZEN PIZZA", "ICE CREAM/MILK/SHERBTS", "COFFEE", "YOGURT",
    "BEERS/ALES", "HAIR CARE PRODUCTS", "COLD AND FLU", "CIGARETTES", "SEAFOOD - FROZEN",
    "GREETING CARDS/WRAP/PARTY SPLY", "DOG FOODS", "ORGANICS FRUIT & VEGETABLES", "CAT FOOD",
    "DOMESTIC WINE", "DIAPERS & DISPOSABLES", "BABY FOODS", "VITAMINS", "FLORAL-FRESH CUT",
)  # fmt: skip
HORIZONS = {"A": 28, "B": 28, "C": 56, "D": 28}
"""Group → days of the future that its labels are made of."""
_WEEKS = {14: "two", 28: "four", 56: "eight"}
_MIN_NEW_BUYERS = 40
_NEW_AFTER_DAYS = 182


@dataclass(frozen=True)
class Task:
    """One behaviour: its population, who of it did it, and the sentence that asks for it."""

    group: str
    name: str
    sentence: str | None
    users: np.ndarray  # str [n]
    labels: np.ndarray  # bool [n]


class Protocol:
    """All tasks at one cut-off.

    Args:
        profiles: canonical profiles that group E is labelled by; without, there is no group E. They
            are not taken from the tables: what a build has there, its model reads.
        categories: that groups A and B ask for; any level of the taxonomy.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, cutoff: datetime, profiles: pa.Table | None = None,
        *, categories: Sequence[str] = CATEGORIES,
    ):  # fmt: skip
        self.con, self.cutoff, self.categories = con, cutoff, tuple(categories)
        self._profiles = profiles
        last = data_span(con)[1]
        if micros(cutoff) > last:
            raise TimeError(
                f"cutoff {cutoff:%Y-%m-%d} lies after the data: there is no future to check against"
            )
        self.everyone = np.array(users_before(con, cutoff), object)

    @cached_property
    def left_out(self) -> dict[str, int]:
        """Groups whose horizon runs past the data, with its days: nobody would have done it."""
        known = {days: self.reaches(days) for days in set(HORIZONS.values())}
        return {group: days for group, days in HORIZONS.items() if not known[days]}

    def reaches(self, days: int) -> bool:
        """Whether what happens in [T, T + days) is in the data."""
        return horizon_known(self.con, self.cutoff, days)

    def tasks(self) -> list[Task]:
        """Groups A, B, C, D as far as the data reach, and E if profiles were given."""
        groups: dict[str, Callable[[], list[Task]]] = {
            "A": self.purchases, "B": self.new_buyers, "C": self.coupons, "D": self.behaviours,
            "E": self.profiles,
        }  # fmt: skip
        return [task for group, tasks in groups.items() if group not in self.left_out
                for task in tasks()]  # fmt: skip

    def purchases(self) -> list[Task]:
        """Group A: buys the category in [T, T + 28 d)."""
        return [self.purchase(category) for category in self.categories]

    def purchase(self, category: str, *, group: str = "A") -> Task:
        """Buys one category in [T, T + 28 d)."""
        buyers = self._buyers(category, 0, 28)
        return self._task(group, category, _will_buy(category), self.everyone, buyers)

    def new_buyers(self, least: int = _MIN_NEW_BUYERS) -> list[Task]:
        """Group B: those of A among households without a purchase of it in the last 182 days.

        Categories with fewer than ``least`` positives are left out.
        """
        tasks = []
        for category in self.categories:
            recent = self._buyers(category, -_NEW_AFTER_DAYS, 0)
            population = np.array([u for u in self.everyone if u not in recent], object)
            buyers = self._buyers(category, 0, 28)
            task = self._task("B", category, _will_buy(category), population, buyers)
            if task.labels.sum() >= least:
                tasks.append(task)
        return tasks

    def coupons(self) -> list[Task]:
        """Group C, if the data have coupons."""
        return [self.coupon()] if self._has("exposures", "kind = 'redeemed'") else []

    def coupon(self) -> Task:
        """Redeems any coupon in [T, T + 56 d)."""
        redeemed = self._users(
            "SELECT DISTINCT user_id FROM exposures WHERE kind = 'redeemed' "
            "AND epoch_us(timestamp) >= $start AND epoch_us(timestamp) < $end", 0, 56,
        )  # fmt: skip
        text = "will redeem a coupon in the next eight weeks"
        return self._task("C", "coupon", text, self.everyone, redeemed)

    def behaviours(self) -> list[Task]:
        """Group D: lapse within 14 days; where there are prices, top-quartile and growing spend."""
        if not self._has("known_events", "source = 'bill'"):
            return []
        shopped = self._users(_SHOPPED, 0, 14)
        active = np.array(sorted(self._users(_SHOPPED, -60, 0)), object)
        spend, before = self._spend(0, 28), self._spend(-28, 0)
        spent = np.array([spend.get(u, 0.0) for u in self.everyone])
        top = spent > np.quantile(spent, 0.75) if len(spent) else np.zeros(0, bool)
        up = np.array([spend.get(u, 0.0) > 1.3 * before.get(u, 0.0) for u in active], bool)
        lapsed = np.array([u not in shopped for u in active], bool)
        four = "in the next four weeks"
        lapse = Task("D", "lapse", "will not shop at all in the next two weeks", active, lapsed)
        if not self._has("known_events", "source = 'bill' AND amount IS NOT NULL"):
            return [lapse]
        return [
            lapse,
            Task("D", "top spend", f"will spend a lot {four}", self.everyone, top),
            Task("D", "spend up", "will spend clearly more than in the last four weeks", active,
                 up),
        ]  # fmt: skip

    def profiles(self) -> list[Task]:
        """Group E: kids, age ≥ 45, income ≥ 75K, married; only of users with a known answer."""
        if self._profiles is None:
            return []
        columns = (self._profiles[name].to_pylist() for name in ("user_id", "categorical"))
        rows = zip(*columns, strict=True)
        known = set(self.everyone)
        profiles = {user: dict(values) for user, values in rows if user in known}
        rules = {
            "kids": ("kids_count", lambda v: v != "0"),
            "age 45+": ("age", lambda v: v[:2] in ("45", "55", "65")),
            "income 75K+": ("income", lambda v: _thousands(v) >= 75),
            "married": ("marital_status", lambda v: v == "Married"),
        }
        tasks = []
        for name, (column, rule) in rules.items():
            values = {u: p[column] for u, p in profiles.items() if p.get(column) is not None}
            users = np.array(sorted(values), object)
            labels = np.array([rule(values[u]) for u in users], bool)
            if len(users):
                tasks.append(Task("E", name, None, users, labels))
        return tasks

    def past_counts(self, category: str, days: int = 182) -> dict[str, float]:
        """Baskets with the category in the ``days`` before T: the heuristic to compare with."""
        return self._weighted(category, days, "1")

    def recency_weighted(self, category: str, half_life: float = 60.0) -> dict[str, float]:
        """Distinct baskets with the category, each halved every ``half_life`` days."""
        return self._weighted(category, 366, f"0.5 ** (age_days / {half_life:f})")

    def activity(self, half_life: float = 60.0) -> dict[str, float]:
        """Distinct baskets of any kind, each halved every ``half_life`` days."""
        rows = self.con.sql(
            f"""SELECT user_id, sum(0.5 ** (age_days / {half_life:f})) FROM (
                SELECT user_id, basket_id, ($t - max(seen)) / 86400000000.0 AS age_days
                FROM known_events WHERE seen < $t GROUP BY ALL ORDER BY ALL) GROUP BY user_id""",
            params={"t": micros(self.cutoff)},
        ).fetchall()
        return {user: float(value) for user, value in rows}

    def _weighted(self, category: str, days: int, weight: str) -> dict[str, float]:
        rows = self.con.sql(
            f"""SELECT user_id, sum({weight}) FROM (
                SELECT user_id, ($t - seen) / 86400000000.0 AS age_days FROM {self._baskets}
                WHERE category = $category AND seen >= $since ORDER BY ALL) GROUP BY user_id""",
            params={"category": category, **self._between(-days, 0, "since", "t")},
        ).fetchall()
        return {user: float(value) for user, value in rows}

    @cached_property
    def _baskets(self) -> str:
        """Name of a table of baskets before T by category, made once: hundreds are asked for."""
        name = f"category_baskets_{micros(self.cutoff)}"
        self.con.execute(
            f"""CREATE TEMP TABLE IF NOT EXISTS {name} AS
                SELECT category, user_id, basket, max(seen) AS seen FROM (
                    SELECT unnest(categories) AS category, user_id,
                           coalesce(basket_id, event_id) AS basket, seen
                    FROM known_events JOIN items USING (item_id)
                    WHERE source = 'bill' AND seen < $t)
                GROUP BY ALL ORDER BY category""",
            {"t": micros(self.cutoff)},
        )
        return name

    def _has(self, table: str, condition: str) -> bool:
        """Whether the data hold any such row, at whatever time."""
        found = self.con.sql(f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1").fetchall()
        return bool(found)

    def _buyers(self, category: str, first_day: int, last_day: int) -> set[str]:
        return self._users(
            """SELECT DISTINCT user_id FROM known_events JOIN items USING (item_id)
            WHERE source = 'bill' AND list_contains(categories, $category)
              AND epoch_us(timestamp) >= $start AND epoch_us(timestamp) < $end""",
            first_day, last_day, category=category,
        )  # fmt: skip

    def _users(self, sql: str, first_day: int, last_day: int, **params: str) -> set[str]:
        bound = {**params, **self._between(first_day, last_day)}
        return {row[0] for row in self.con.sql(sql, params=bound).fetchall()}

    def _spend(self, first_day: int, last_day: int) -> dict[str, float]:
        rows = self.con.sql(
            """SELECT user_id, sum(amount::DECIMAL(18, 4))::DOUBLE FROM known_events
            WHERE source = 'bill' AND amount IS NOT NULL AND epoch_us(timestamp) >= $start
              AND epoch_us(timestamp) < $end GROUP BY user_id""",
            params=self._between(first_day, last_day),
        ).fetchall()
        return dict(rows)

    def _between(
        self, first_day: int, last_day: int, start: str = "start", end: str = "end"
    ) -> dict[str, int]:
        return {
            start: micros(self.cutoff + timedelta(days=first_day)),
            end: micros(self.cutoff + timedelta(days=last_day)),
        }

    @staticmethod
    def _task(group: str, name: str, text: str, users: np.ndarray, hits: set[str]) -> Task:
        return Task(group, name, text, users, np.array([u in hits for u in users], bool))


_SHOPPED = """SELECT DISTINCT user_id FROM known_events WHERE source = 'bill'
              AND epoch_us(timestamp) >= $start AND epoch_us(timestamp) < $end"""


def frequent_headings(
    con: duckdb.DuckDBPyConnection, before: datetime, num: int = len(CATEGORIES)
) -> tuple[str, ...]:
    """The headings most purchases known strictly before a date are of, most first; ties by name.

    Headings stand on the second level of the taxonomy, or on its only one.
    """
    rows = con.execute(
        """SELECT coalesce(categories[2], categories[1]) AS heading, count(*) AS n
        FROM known_events JOIN items USING (item_id)
        WHERE source = 'bill' AND seen < $t AND len(categories) > 0
        GROUP BY heading ORDER BY n DESC, heading LIMIT $num""",
        {"t": micros(before), "num": num},
    ).fetchall()
    return tuple(heading for heading, _ in rows)


def _will_buy(category: str) -> str:
    return f"will buy {category.lower()} in the next {_WEEKS[28]} weeks"


def _thousands(income: str) -> int:
    """Lower bound of an income band: "75-99K" → 75, "Under 15K" → 0, "250K+" → 250."""
    digits = income.split("-")[0].strip("K+ ")
    return int(digits) if digits.isdigit() else 0
