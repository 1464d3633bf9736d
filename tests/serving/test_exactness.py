"""Audiences equal brute force: random plans against float64 scores and a scan of the raw events.

A tie, declared: two users are tied when their float32 scores are equal, and tied users stand in
order of user_id. A float32 score of D products is off by at most D * 2^-24 * |x|·|q| (Higham), so
against float64 users may swap only if their scores lie that close together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import schema
from feature_repo.facts import write_facts
from feature_repo.matrix import Matrix
from feature_repo.profiles import profile_weekly
from feature_repo.rule_filter import RuleFilter
from feature_repo.rules import All, AnyOf, Behaviour, InAudience, Not, Profile, Rule, Users, dump
from feature_repo.sources import read_source
from feature_repo.transforms import open_tables
from sdk.types import TargetRequest
from serving.nearest import Rows
from serving.selecting import Eligible, Selected, eligible, select

AS_OF = datetime(2017, 9, 11, tzinfo=UTC)
DIM = 384


@dataclass
class Population:
    """Users with vectors, profiles and events, opened as a snapshot is."""

    users: np.ndarray  # [N] ids
    vectors: np.ndarray  # [N, D] float32
    events: pd.DataFrame  # row, day, source, basket, amount, categories
    profiles: pd.DataFrame  # in the order of users
    subjects: list[str]
    columns: dict[str, list[Any]]  # categorical: some values; continuous: []
    opened: Any
    audience: list[str]

    def __post_init__(self) -> None:
        self.rank = np.argsort(np.argsort(self.users.astype(object)))
        self.norms = np.linalg.norm(self.vectors, axis=1).astype(np.float64)

    def holds(self, rule: Rule) -> np.ndarray:
        """Slow meaning of a rule, bool [N], from the raw rows."""
        match rule:
            case All(rules):
                return np.all([self.holds(one) for one in rules], axis=0)
            case AnyOf(rules):
                return np.any([self.holds(one) for one in rules], axis=0)
            case Not(inner):
                return ~self.holds(inner)
            case Users(ids):
                return np.isin(self.users, ids)
            case InAudience(_):
                return np.isin(self.users, self.audience)
            case Profile(column, op, value):
                return self._profile(self.profiles[column], op, value)
            case Behaviour():
                return self._behaviour(rule)
        raise AssertionError(rule)

    @staticmethod
    def _profile(column: pd.Series, op: str, value: Any) -> np.ndarray:
        found = {
            "is": lambda: column == value,
            "is_not": lambda: column.notna() & (column != value),
            "in": lambda: column.isin(value),
            "at_least": lambda: column >= value,
            "at_most": lambda: column <= value,
            "between": lambda: column.between(*value),
            "known": lambda: column.notna(),
        }[op]()
        return found.to_numpy(dtype=bool, na_value=False)

    def _behaviour(self, rule: Behaviour) -> np.ndarray:
        rows = self.events[self.events["source"] == "bill"]
        if rule.days is not None:
            rows = rows[rows["day"] < rule.days]
        if rule.subject is not None:
            rows = rows[rows[rule.subject]] if rule.subject in rows else rows[:0]
        if rule.measure == "count":
            found = rows.drop_duplicates(["row", "day", "basket"]).groupby("row").size()
        else:
            found = rows.groupby("row")["amount"].sum().round(4)
        value = found.reindex(range(len(self.users)), fill_value=0).to_numpy()
        low, high = rule.bounds
        return (value >= low) & (value <= high)

    def check(self, request: TargetRequest, rule: Rule | None, query: np.ndarray) -> Selected:
        """Pick, and compare with brute force; returns what was picked."""
        members = lambda audience: self.audience  # noqa: E731
        among = eligible(self.opened, "fused", request, members)
        found = select(self.opened, "fused", query, request, among)
        scores = self.vectors.astype(np.float64) @ query.astype(np.float64)
        slack = DIM * 2.0**-24 * self.norms * np.linalg.norm(query.astype(np.float64))
        forced = np.isin(self.users, request.include or [])
        may = np.ones(len(scores), bool) if rule is None else self.holds(rule)
        may &= ~np.isin(self.users, request.exclude or [])
        if request.exclude_audiences:
            may &= ~np.isin(self.users, self.audience)
        self._check_eligible(among, may | forced)
        rows = found.rows
        assert len(set(rows.tolist())) == len(rows) and (may | forced)[rows].all()
        assert forced[rows].sum() == forced.sum()
        self._check_order(rows, found.scores, scores, slack)
        free_in = rows[~forced[rows]]
        out = np.ones(len(scores), bool)
        out[rows] = False
        left = np.flatnonzero(out & may & ~forced)
        if request.min_score is not None:
            assert (scores[free_in] >= request.min_score - slack[free_in]).all()
            assert (scores[left] < request.min_score + slack[left]).all()
            return found
        size = request.size or max(1, int(np.ceil(round(request.share * len(scores), 6))))
        assert len(rows) == min(size, (may | forced).sum()), "full while anybody is eligible"
        if len(free_in) and len(left):
            last = free_in[np.argmin(scores[free_in])]
            assert (scores[left] <= scores[last] + slack[left] + slack[last]).all()
        return found

    @staticmethod
    def _check_eligible(among: Eligible, expected: np.ndarray) -> None:
        if among.allowed is not None:
            np.testing.assert_array_equal(among.allowed, expected)
            assert among.count == expected.sum()
        else:
            assert expected.all()

    def _check_order(
        self, rows: np.ndarray, singles: np.ndarray, scores: np.ndarray, slack: np.ndarray
    ) -> None:
        before, after = rows[:-1], rows[1:]
        assert (scores[before] >= scores[after] - slack[before] - slack[after]).all()
        assert (singles[:-1] >= singles[1:]).all()
        tied = singles[:-1] == singles[1:]
        assert (self.rank[before][tied] < self.rank[after][tied]).all()
        assert (np.abs(singles - scores[rows]) <= slack[rows]).all()


def population(tables: Any, profiles: pa.Table, users: list[str], place: Path) -> Population:
    """Open users with facts from canonical tables, and random vectors, some of them equal."""
    con = open_tables(tables)
    write_facts(con, profiles, users, AS_OF, place, "snapshots/x")
    raw = con.sql(
        """SELECT user_id, source, basket_id AS basket, amount, categories,
           (epoch_us(TIMESTAMPTZ '2017-09-11 00:00:00+00') - epoch_us(timestamp) - 1)
               // 86400000000 AS day
        FROM known_events JOIN items USING (item_id)
        WHERE seen < epoch_us(TIMESTAMPTZ '2017-09-11 00:00:00+00')"""
    ).df()
    raw["basket"] = raw["basket"].astype("category").cat.codes  # numbers compare faster
    index = pd.Series(range(len(users)), index=users)
    raw["row"] = index.reindex(raw["user_id"]).to_numpy()
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((len(users), DIM), dtype=np.float32)
    vectors[::9] = vectors[0]
    arrow = pa.array(users)
    rules = RuleFilter(arrow, place / "facts", "x")
    known = sorted(rules.vocabulary.subjects["bought"])
    subjects = random.Random(0).sample(known, min(25, len(known)))
    names = raw["categories"].map(set)
    for subject in subjects:
        raw[subject] = names.map(lambda found, subject=subject: subject in found)
    matrix = Matrix(vectors, arrow)
    opened = SimpleNamespace(
        manifest=SimpleNamespace(num_users=len(users), facts=object(), id="x"),
        matrices={"fused": matrix},
        rows={"fused": Rows(matrix)},
        rules=rules,
    )
    frame = profiles.to_pandas().set_index("user_id").reindex(users)
    columns = {
        name: sorted(column.values)[:40] for name, column in rules.vocabulary.columns.items()
    }
    return Population(
        np.array(users), vectors, raw, frame, subjects, columns, opened, users[5 :: 7]
    )  # fmt: skip


def random_rule(world: Population, draw: random.Random, depth: int = 2) -> Rule:
    if depth and draw.random() < 0.5:
        some = tuple(random_rule(world, draw, depth - 1) for _ in range(draw.randint(1, 3)))
        return draw.choice([All(some), AnyOf(some), Not(some[0])])
    kind = draw.random()
    if kind < 0.05:
        return InAudience("a1")
    if kind < 0.1:
        return Users(tuple(draw.sample([*world.users[:500].tolist(), "stranger"], 200)))
    if kind < 0.45:
        column = draw.choice(list(world.columns))
        values = world.columns[column]
        if values:
            some = draw.sample(values, min(3, len(values)))
            return draw.choice(
                [Profile(column, "is", some[0]), Profile(column, "is_not", some[0]),
                 Profile(column, "in", tuple(some)), Profile(column, "known")]
            )  # fmt: skip
        known = world.profiles[column].dropna()
        low, high = sorted(float(known.iloc[draw.randrange(len(known))]) for _ in range(2))
        return draw.choice(
            [Profile(column, "at_least", low), Profile(column, "at_most", high),
             Profile(column, "between", (low, high)), Profile(column, "known")]
        )  # fmt: skip
    subject = draw.choice([None, *world.subjects])
    days = draw.choice([None, 1, 7, 30, 45, 119])
    low, high = draw.choice([(None, None), (2, None), (None, 0), (None, 3), (1, 4)])
    measure = "amount" if (low, high) != (None, None) and draw.random() < 0.3 else "count"
    return Behaviour("bought", subject, days, measure, low, high)


def random_plans(
    world: Population, num: int, seed: int
) -> Iterator[tuple[TargetRequest, Rule | None, np.ndarray]]:
    draw, generator = random.Random(seed), np.random.default_rng(seed)
    count = len(world.users)
    for n in range(num):
        query = generator.standard_normal(DIM).astype(np.float32)
        rule = random_rule(world, draw) if draw.random() < 0.7 else None
        cut: dict[str, Any] = draw.choice(
            [
                {"size": [1, count, count + 10][n % 3]},
                {"size": draw.randint(1, count)},
                {"size": draw.randint(200, max(201, count // 10))},
                {"share": draw.choice([0.01, 0.3, 1.0])},
                {"min_score": float(generator.normal(0, 20))},
            ]
        )
        fields: dict[str, Any] = {"text": "x", "exact": True, **cut}
        if draw.random() < 0.3 and cut.get("size", 200) >= 200:
            fields["include"] = draw.sample(world.users.tolist()[1:400], 20)
        if draw.random() < 0.3:
            fields["exclude"] = draw.sample([*world.users.tolist()[400:900], "stranger"], 100)
        if draw.random() < 0.2 and "include" not in fields:
            fields["exclude_audiences"] = ["a1"]
        rules = None if rule is None else dump(rule)
        yield TargetRequest(**fields, rules=rules), rule, query


def run_plans(world: Population, num: int, seed: int = 0) -> list[Selected]:
    return [world.check(*plan) for plan in random_plans(world, num, seed)]


def synthetic(num_users: int, num_events: int, place: Path) -> Population:
    """A made-up world: events over 150 days, three levels of names, profiles partly unknown."""
    generator = np.random.default_rng(1)
    numbers = generator.permutation(num_users)
    users = [f"u{n}" for n in numbers]
    items = [
        {"item_id": f"i{n}", "text": f"t{n}",
         "categories": [f"D{n % 4}", f"C{n % 20}", f"T{n % 60}"]}
        for n in range(120)
    ]  # fmt: skip
    when = np.datetime64("2017-09-12") - generator.integers(0, 150 * 86_400, num_events).astype(
        "timedelta64[s]"
    )
    when = pa.array(when.astype("datetime64[us]")).cast(schema.TIMESTAMP)
    amounts = np.round(generator.exponential(5, num_events), 2)
    events = {
        "event_id": pa.array([f"e{n}" for n in range(num_events)]),
        "user_id": pa.array([f"u{n}" for n in generator.integers(0, num_users, num_events)]),
        "timestamp": when,
        "known_at": when,
        "source": pa.array(["bill"] * num_events),
        "item_id": pa.array([f"i{n}" for n in generator.integers(0, 120, num_events)]),
        "amount": pa.array(amounts),
        "basket_id": pa.array([f"b{n // 2}" for n in range(num_events)]),
    }
    absent = [name for name in schema.EVENTS.names if name not in events]
    for name in absent:
        events[name] = pa.nulls(num_events, schema.EVENTS.field(name).type)
    tables = {
        "events": pa.table(events).select(schema.EVENTS.names).cast(schema.EVENTS),
        "items": pa.Table.from_pylist(items, schema=schema.ITEMS),
    }
    age = generator.integers(18, 90, num_users).astype(float)
    plan = np.array(["free", "plus", "pro"])[generator.integers(0, 3, num_users)]
    profiles = pa.table(
        {
            "user_id": users,
            "age": pa.array(age, mask=generator.random(num_users) < 0.2),
            "plan": pa.array(plan, mask=generator.random(num_users) < 0.1),
        }
    )
    return population(tables, profiles, users, place)


def test_random_plans_equal_brute_force_on_a_small_world(tmp_path: Path) -> None:
    world = synthetic(2_000, 12_000, tmp_path)
    found = run_plans(world, 60)
    sizes = [len(one.rows) for one in found]
    assert min(sizes) <= 1 and max(sizes) == 2_000
    assert sum(1 for one in found if one.eligible is not None) > 30


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_random_plans_equal_brute_force_on_two_hundred_thousand(tmp_path: Path) -> None:
    run_plans(synthetic(200_000, 300_000, tmp_path), 100, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_random_plans_equal_brute_force_on_complete_journey(tmp_path: Path) -> None:
    source = read_source("complete-journey", demographics=True)
    tables = {name: getattr(source, name) for name in schema.CANONICAL}
    con = open_tables(tables)
    rows = profile_weekly(con, AS_OF)
    con.close()
    last = pa.compute.equal(rows["event_timestamp"], pa.scalar(AS_OF, schema.TIMESTAMP))
    profiles = rows.filter(last)
    pq.write_table(profiles, tmp_path / "profiles.parquet")
    world = population(tables, profiles, sorted(profiles["user_id"].to_pylist()), tmp_path)
    found = run_plans(world, 100, seed=2)
    assert max(len(one.rows) for one in found) == len(world.users)


def test_one_day_more_or_less_changes_a_window(tmp_path: Path) -> None:
    """The brute force above would not notice if both counted days the same wrong way."""
    when = [AS_OF - timedelta(days=30), AS_OF - timedelta(days=30, microseconds=1)]
    rows = [
        {"event_id": str(n), "user_id": f"u{n}", "timestamp": t, "known_at": t, "source": "bill",
         "item_id": "i"}
        for n, t in enumerate(when)
    ]  # fmt: skip
    items = [{"item_id": "i", "text": "tea", "categories": ["TEA"]}]
    tables = {
        "events": pa.Table.from_pylist(rows, schema=schema.EVENTS),
        "items": pa.Table.from_pylist(items, schema=schema.ITEMS),
    }
    world = population(tables, pa.table({"user_id": ["u0", "u1"]}), ["u0", "u1"], tmp_path)
    rule = {"type": "behaviour", "verb": "bought", "subject": "TEA", "days": 30}
    among = eligible(world.opened, "fused", TargetRequest(rules=rule), lambda _: [])
    assert among.allowed is not None and among.allowed.tolist() == [True, False]
