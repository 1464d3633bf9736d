"""Why this user: which past events and profile fields carried a score, by occlusion.

The user's weekly rows are copied with parts taken out, encoded by the real model through the same
collate, and scored again. A part is an *event* (a subject in a week: its lines, its habit and its
share of the department's), a descriptive profile column, all hand-made aggregates at once, or all
searches.

Parts are taken out one after the other, in random orders and their reverses; a part's contribution
is what the score loses when its turn comes, on average (Shapley values by antithetic permutations).
So contributions add up to the score minus that of the user without any part, up to rounding
(:data:`TOLERANCE`, relative); one-at-a-time effects do not, as habits stand in for one another.
What any event is worth, against none at all, is shared by all of them.

Shapes: V variants of the user, P parts, D width of the joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from encoders.history import HABIT_COLUMNS, TEXT_COLUMNS
from feature_repo.schema import AGGREGATE_PREFIX

TOLERANCE = 1e-3
ORDERS = 2
POOL = 24
"""Events among which the decisive ones are looked for."""
_SINGLE = 15
AGGREGATES = "overall activity"
SEARCHES = "searches"
_SOURCES = {"bill": "purchase", "click": "click", "mini_program": "browsing"}
_VERBS = {"bill": "bought", "click": "clicked", "mini_program": "browsed"}
_KEYS = ("user_id", "event_timestamp", "created")
_WHOLE = ("profile_weekly", "search_weekly")  # views whose parts are not of one week

Tables = Mapping[str, pa.Table]
"""View → weekly rows, as point-in-time retrieval gives them."""
Encode = Callable[[Tables, Sequence[str]], np.ndarray]
"""Weekly rows of several users, and their ids → vectors at their last window, float32 [V, D]."""


@dataclass(frozen=True, order=True)
class Part:
    """Something that can be taken out of a user's past."""

    modality: str  # behaviour | tabular | search
    name: str  # a subject, or a profile column
    week_end: datetime | None = None  # exclusive; None for a profile column
    verb: str = ""
    source: str = ""
    earlier: tuple[datetime, ...] = ()  # ends of further weeks, joined with it

    def words(self) -> str:
        """The part as people say it."""
        if self.week_end is None:
            return self.name
        if self.earlier:
            weeks = f"{len(self.earlier) + 1} weeks up to {self.week_end:%Y-%m-%d}"
            return f"{self.verb} {self.name.lower()} in {weeks}"
        return f"{self.verb} {self.name.lower()} in the week before {self.week_end:%Y-%m-%d}"


@dataclass(frozen=True)
class Explanation:
    """What carried a score; the largest contribution first."""

    score: float
    without: float  # the score of the user without any part
    contributions: tuple[tuple[Part, float], ...]

    @property
    def unexplained(self) -> float:
        """What the contributions miss of the score, relative to how far it moved."""
        missed = self.score - self.without - sum(each for _, each in self.contributions)
        return abs(missed) / max(abs(self.score - self.without), 1e-6)

    def modalities(self) -> dict[str, float]:
        """The contributions summed by modality."""
        totals: dict[str, float] = {}
        for part, each in self.contributions:
            totals[part.modality] = totals.get(part.modality, 0.0) + each
        return totals


class UserPast:
    """The weekly rows of one user, and copies of them with parts taken out.

    Args:
        tables: rows of this user only, any order.
        parents: subject → the subject one level up, where the taxonomy has one.
        most: so many events stay apart at most; of further ones, those of the oldest weeks are
            joined by subject.
    """

    def __init__(self, tables: Tables, parents: Mapping[str, str], *, most: int | None = None):
        self._rows = {
            view: sorted(table.to_pylist(), key=lambda row: row["event_timestamp"])
            for view, table in tables.items()
        }
        self._schemas = {view: table.schema for view, table in tables.items()}
        self._parents = parents
        found = sorted(self._find())
        self.parts = tuple(found if most is None else _joined(found, most))

    def without(self, taken: Sequence[frozenset[Part]]) -> tuple[dict[str, pa.Table], list[str]]:
        """One variant per set of parts taken out: their weekly rows, and the variants' ids."""
        ids = [f"variant-{v:06d}" for v in range(len(taken))]
        by_week = [_by_week(out) for out in taken]
        tables = {}
        for view, rows in self._rows.items():
            # Most weeks of most variants are alike: each distinct row is made once, then repeated.
            made: dict[tuple[int, frozenset[Part]], int] = {}
            copies: list[dict[str, Any]] = []
            where = np.empty((len(taken), len(rows)), np.int64)
            for v, weeks in enumerate(by_week):
                columns = weeks.get(None, frozenset())
                for n, row in enumerate(rows):
                    out = columns if view in _WHOLE else weeks.get(
                        row["event_timestamp"], frozenset()
                    )  # fmt: skip
                    at = made.setdefault((n, out), len(copies))
                    if at == len(copies):
                        copies.append(self._copy(view, row, out))
                    where[v, n] = at
            table = pa.Table.from_pylist(copies, schema=self._schemas[view])
            table = table.take(pa.array(where.reshape(-1)))
            names = pa.array(np.repeat(np.array(ids, object), len(rows)), pa.string())
            tables[view] = table.set_column(table.column_names.index("user_id"), "user_id", names)
        return tables, ids

    def _copy(self, view: str, row: dict[str, Any], out: frozenset[Part]) -> dict[str, Any]:
        copy = dict(row)
        for part in out:
            if view == "search_weekly" and part.modality == "search":
                copy |= {"searches": [], "search_counts": []}
            elif view == "profile_weekly" and part.modality == "tabular":
                copy |= dict.fromkeys(_aggregates(row) if part.name == AGGREGATES else [part.name])
        for source in _SOURCES:
            names = {part.name for part in out if part.source == source}
            if names and view == "behaviour_weekly":
                _cut_lines(copy, source, names)
            elif names and view == "habits_weekly":
                self._cut_habits(copy, source, names)
        return copy

    def _cut_habits(self, row: dict[str, Any], source: str, names: set[str]) -> None:
        """Takes subjects out; what is above them keeps at most what the rest can account for."""
        column = HABIT_COLUMNS[_SOURCES[source]]
        counts = dict(zip(row[column], row[f"{column}_counts"], strict=True))
        above = {self._parents[n] for n in names if self._parents.get(n) in counts}
        kept = {n: count for n, count in counts.items() if n not in names}
        for parent in above - names:
            rest = sum(c for n, c in kept.items() if self._parents.get(n) == parent)
            if rest:
                kept[parent] = min(counts[parent], rest)
            else:
                kept.pop(parent)
        row[column], row[f"{column}_counts"] = list(kept), list(kept.values())

    def _find(self) -> set[Part]:
        found: set[Part] = set()
        for row in self._rows.get("behaviour_weekly", []):
            for source, (column, _) in TEXT_COLUMNS.items():
                for line in row[column] or []:
                    found.add(
                        Part("behaviour", subject_of(line), row["event_timestamp"],
                             _VERBS[source], source)
                    )  # fmt: skip
        if any(row["searches"] for row in self._rows.get("search_weekly", [])):
            found.add(Part("search", SEARCHES))
        if profiles := self._rows.get("profile_weekly"):
            last = profiles[-1]
            known = [n for n in last if n not in _KEYS and last[n] is not None]
            found |= {
                Part("tabular", n) for n in known if not n.startswith(AGGREGATE_PREFIX)
            }  # fmt: skip
            if _aggregates(last):
                found.add(Part("tabular", AGGREGATES))
        return found


def explain(
    past: UserPast, query_D: np.ndarray, encode: Encode, *, orders: int = ORDERS, seed: int = 0
) -> Explanation:
    """Which parts carried the user's score for a query.

    Args:
        orders: permutations, an even number: each comes with its reverse.
    """
    rng = np.random.default_rng(seed)
    parts = past.parts
    events = np.array([k for k, part in enumerate(parts) if part.week_end is not None], int)
    total = np.zeros(len(parts))
    score = without = 0.0
    for _ in range(max(1, orders // 2)):
        order = rng.permutation(len(parts))
        for each in (order, order[::-1]):
            taken = [frozenset(parts[k] for k in each[:n]) for n in range(len(parts) + 1)]
            scores_V = scored(past, taken, query_D, encode)
            total[each] += scores_V[:-1] - scores_V[1:]
            if len(events) > 1:
                any_event = _of_any(past, each, events, query_D, encode, rng)
                total[each[np.isin(each, events)][-1]] -= any_event
                total[events] += any_event / len(events)
            score, without = float(scores_V[0]), float(scores_V[-1])
    mean = total / (2 * max(1, orders // 2))
    ranked = np.argsort(-mean, kind="stable")
    return Explanation(score, without, tuple((parts[k], float(mean[k])) for k in ranked))


def _of_any(
    past: UserPast, order: np.ndarray, events: np.ndarray, query_D: np.ndarray, encode: Encode,
    rng: np.random.Generator,
) -> float:  # fmt: skip
    """What having any event at all is worth, which an order gives to the one taken out last.

    Of some events, each left as the only one, the median: what is particular to one stays out.
    """
    place = np.flatnonzero(np.isin(order, events))[-1]
    columns = frozenset(past.parts[k] for k in order[place + 1 :])
    tried = rng.choice(events, min(_SINGLE, len(events)), replace=False)
    every = frozenset(past.parts) - columns
    taken = [every, *(every - {past.parts[k]} for k in tried)]
    scores_V = scored(past, taken, query_D, encode)
    return float(np.median(scores_V[1:] - scores_V[0]))


def decisive(
    past: UserPast, found: Explanation, query_D: np.ndarray, encode: Encode, *, num: int = 5,
    among: int = POOL,
) -> list[Part]:  # fmt: skip
    """The events whose deletion together moves the score most, the first one first.

    Habits stand in for one another, so the best single events need not be the best few. The latest
    events of each subject are tried together, and a greedy choice, both ``among`` the few
    that contribute most; what speaks against the user is named where that moves the score more.
    """
    events = [part for part, _ in found.contributions if part.week_end is not None]
    chosen: list[tuple[float, list[Part]]] = []
    for pool, sign in ((events[:among], 1.0), (events[::-1][:among], -1.0)):
        left, moved = list(pool), 0.0
        taken: list[Part] = []
        while left and len(taken) < num:
            scores_V = scored(past, [frozenset([*taken, each]) for each in left], query_D, encode)
            best = int(np.argmin(sign * scores_V))
            moved = sign * (found.score - float(scores_V[best]))
            taken.append(left.pop(best))
        chosen.append((moved, taken))
    alike = _by_subject(events[:among] + events[::-1][:among], events, num)
    scores_V = scored(past, [frozenset(each) for each in alike], query_D, encode)
    chosen += [(abs(found.score - float(s)), a) for s, a in zip(scores_V, alike, strict=True)]
    return max(chosen, key=lambda one: one[0])[1]


def _by_subject(pool: Sequence[Part], events: Sequence[Part], num: int) -> list[list[Part]]:
    """The latest few events of each subject in the pool."""
    latest = sorted(events, key=lambda part: (str(part.week_end), part.name), reverse=True)
    subjects = dict.fromkeys((part.source, part.name) for part in pool)
    return [[e for e in latest if (e.source, e.name) == one][:num] for one in subjects]


def scored(
    past: UserPast, taken: Sequence[frozenset[Part]], query_D: np.ndarray, encode: Encode,
    *, at_once: int = 256,
) -> np.ndarray:  # fmt: skip
    """The score of each variant, float64 [V]."""
    found = []
    for start in range(0, len(taken), at_once):
        tables, ids = past.without(taken[start : start + at_once])
        found.append(encode(tables, ids).astype(np.float64) @ query_D)
    return np.concatenate(found)


class FutureSentences:
    """Sentences about the future, and how they fit everybody.

    Args:
        population_ND: vectors of the users to compare with.
        queries_SD: vectors of the sentences.
    """

    def __init__(self, population_ND: np.ndarray, queries_SD: np.ndarray, sentences: Sequence[str]):
        scores_NS = np.asarray(population_ND) @ queries_SD.T
        self._mean_S, self._std_S = scores_NS.mean(0), np.maximum(scores_NS.std(0), 1e-9)
        self._queries_SD, self._sentences = queries_SD, sentences

    def nearest(self, user_D: np.ndarray, *, num: int = 5) -> list[tuple[str, float]]:
        """The sentences that fit this user most, against how they fit everybody.

        Returns:
            Sentences and how many standard deviations the user's score lies above the mean.
        """
        above_S = (user_D @ self._queries_SD.T - self._mean_S) / self._std_S
        best = np.argsort(-above_S, kind="stable")[:num]
        return [(self._sentences[k], float(above_S[k])) for k in best]


def subject_of(line: str) -> str:
    """What a line is about: the part before its colon, or all of it."""
    return line.split(": ", 1)[0]


def _by_week(out: frozenset[Part]) -> dict[datetime | None, frozenset[Part]]:
    """Parts by the week that they happened in; None for the profile's."""
    weeks: dict[datetime | None, set[Part]] = {}
    for part in out:
        for week in (part.week_end, *part.earlier):
            weeks.setdefault(week, set()).add(part)
    return {week: frozenset(parts) for week, parts in weeks.items()}


def _joined(parts: Sequence[Part], most: int) -> list[Part]:
    """The parts, with events of the oldest weeks joined by subject until few enough are left."""
    weeks = sorted({part.week_end for part in parts if part.week_end is not None})
    kept = list(parts)
    for last in weeks:
        if sum(part.week_end is not None for part in kept) <= most:
            break
        kept, old = [], {}  # type: ignore[var-annotated]
        for part in parts:
            if part.week_end is None or part.week_end > last:
                kept.append(part)
            else:
                old.setdefault((part.source, part.name), []).append(part)
        for each in old.values():
            *earlier, latest = sorted(part.week_end for part in each)
            kept.append(replace(each[0], week_end=latest, earlier=tuple(earlier)))
    return sorted(kept)


def _cut_lines(row: dict[str, Any], source: str, names: set[str]) -> None:
    column, counts = TEXT_COLUMNS[source]
    kept = [
        (line, count)
        for line, count in zip(row[column], row[counts], strict=True)
        if subject_of(line) not in names
    ]
    row[column], row[counts] = [line for line, _ in kept], [count for _, count in kept]


def _aggregates(row: Mapping[str, Any]) -> list[str]:
    return [name for name in row if name.startswith(AGGREGATE_PREFIX)]
