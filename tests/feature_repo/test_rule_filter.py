"""Masks of rules against a slow count over the raw events, row by row, in Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import schema
from feature_repo.errors import NotCarried
from feature_repo.facts import write_facts
from feature_repo.rule_filter import RuleFilter
from feature_repo.rules import (
    All,
    AnyOf,
    Behaviour,
    InAudience,
    Not,
    Profile,
    Rule,
    RuleError,
    Users,
)
from feature_repo.transforms import open_tables

AS_OF = datetime(2020, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
USERS = [f"u{n}" for n in random.Random(3).sample(range(30), 30)]
ITEMS = {
    "i1": ["FOOD", "CHEESE", "GOUDA"],
    "i2": ["FOOD", "CHEESE", "BRIE"],
    "i3": ["PETS", "CAT FOOD", "CAT FOOD"],  # one name on two levels
    "i4": [],
}


@cache
def events(seed: int = 0, num: int = 600) -> list[dict[str, Any]]:
    """Synthetic events of 120 days, some of them late, several lines to a basket."""
    draw = random.Random(seed)
    rows = []
    for n in range(num):
        # Whole days make the edges of windows common.
        when = AS_OF - DAY * draw.randint(0, 120) - timedelta(hours=draw.choice([0, 0, 7]))
        late = DAY * draw.choice([0, 0, 0, 5])
        rows.append(
            {
                "event_id": f"e{n}",
                "user_id": f"u{draw.randint(0, 25)}",  # some users did nothing
                "timestamp": when,
                "known_at": when + late,
                "source": draw.choice(["bill", "bill", "click"]),
                "item_id": draw.choice(list(ITEMS)),
                "amount": draw.choice([1.5, 2.25, None]),
                "channel": draw.choice(["coupon", None]),
                "basket_id": draw.choice([f"b{n // 3}", None]),
            }
        )
    return rows


def profiles() -> pa.Table:
    known = [user for user in USERS if user != "u5"]
    return pa.table(
        {
            "user_id": known,
            "event_timestamp": pa.array([AS_OF] * len(known), schema.TIMESTAMP),
            "created": pa.array([AS_OF] * len(known), schema.TIMESTAMP),
            "plan": [None if int(u[1:]) % 4 == 0 else f"p{int(u[1:]) % 3}" for u in known],
            'odd "name"; --': [float(u[1:]) if int(u[1:]) % 5 else float("nan") for u in known],
        }
    )


def open_filter(rows: list[dict[str, Any]], place: Path) -> RuleFilter:
    items = [{"item_id": k, "text": f"text {k}", "categories": c} for k, c in ITEMS.items()]
    con = open_tables(
        {
            "events": pa.Table.from_pylist(rows, schema=schema.EVENTS),
            "items": pa.Table.from_pylist(items, schema=schema.ITEMS),
        }
    )
    write_facts(con, profiles(), USERS, AS_OF, place, "snapshots/x")
    return RuleFilter(pa.array(USERS), place / "facts", "x")


def test_a_bill_that_was_not_paid_is_in_no_rule(tmp_path: Path) -> None:
    more = [
        {**row, "event_id": f"failed{n}", "source": "bill", "channel": "card", "status": "failed"}
        for n, row in enumerate(events())
    ]
    for name, rows in (("without", events()), ("with", events() + more)):
        open_filter(rows, tmp_path / name)
    for file in ("subjects", "behaviour", "profiles"):
        one, other = ((tmp_path / name / f"facts/{file}.parquet").read_bytes()
                      for name in ("without", "with"))  # fmt: skip
        assert one == other


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RuleFilter:
    return open_filter(events(), tmp_path_factory.mktemp("facts"))


def slow(rule: Rule, user: str) -> bool:
    """The meaning of a rule, by the words of ``rules.py``."""
    if isinstance(rule, All):
        return all(slow(one, user) for one in rule.rules)
    if isinstance(rule, AnyOf):
        return any(slow(one, user) for one in rule.rules)
    if isinstance(rule, Not):
        return not slow(rule.rule, user)
    if isinstance(rule, Users):
        return user in rule.ids
    assert isinstance(rule, Behaviour)
    source = {"bought": "bill", "clicked": "click", "paid": "bill"}[rule.verb]
    baskets, amount = set(), 0.0
    for row in events():
        if row["user_id"] != user or row["source"] != source or row["known_at"] >= AS_OF:
            continue
        if row["timestamp"] >= AS_OF:
            continue
        if rule.days is not None and row["timestamp"] < AS_OF - DAY * rule.days:
            continue
        names = ITEMS[row["item_id"]] or [f"text {row['item_id']}"]
        if rule.verb == "paid":
            names = [row["channel"]]
            if row["channel"] is None:
                continue
        if rule.subject is None or rule.subject in names:
            ago = (AS_OF - row["timestamp"] - timedelta(microseconds=1)) // DAY
            baskets.add((row["basket_id"] or row["event_id"], ago))
            amount += row["amount"] or 0.0
    low, high = rule.bounds
    return low <= (len(baskets) if rule.measure == "count" else amount) <= high


def random_rule(draw: random.Random, depth: int = 2) -> Rule:
    if depth and draw.random() < 0.6:
        some = tuple(random_rule(draw, depth - 1) for _ in range(draw.randint(1, 3)))
        return draw.choice([All(some), AnyOf(some), Not(some[0])])
    if draw.random() < 0.1:
        return Users(tuple(draw.sample([*USERS, "stranger"], 12)))
    verb = draw.choice(["bought", "bought", "clicked", "paid"])
    names = ["FOOD", "CHEESE", "BRIE", "CAT FOOD", "text i4", None]
    low, high = draw.choice([(None, None), (2, None), (None, 0), (None, 3), (1, 4), (0, None)])
    measure = "count" if (low, high) == (None, None) else draw.choice(["count", "amount"])
    subject = draw.choice(["coupon", None] if verb == "paid" else names)
    days = draw.choice([None, 1, 7, 30, 45, 119])
    return Behaviour(verb, subject, days, measure, low, high)


def test_random_rules_mean_what_a_slow_count_says(rules: RuleFilter) -> None:
    draw, kinds = random.Random(1), set()
    for _ in range(150):
        rule = random_rule(draw)
        expected = [slow(rule, user) for user in USERS]
        assert rules.allowed(rule).tolist() == expected, rule
        assert rules.allowed(rule).tolist() == expected, "a remembered mask"
        kinds.add((any(expected), all(expected)))
    assert len(kinds) == 3  # everybody, nobody, and most of the time some


def test_a_window_ends_where_it_says_to_the_microsecond(tmp_path: Path) -> None:
    row = events()[0] | {"user_id": "u1", "source": "bill", "item_id": "i1"}
    inside, outside = AS_OF - 30 * DAY, AS_OF - 30 * DAY - timedelta(microseconds=1)
    rows = [
        row | {"event_id": "1", "timestamp": inside, "known_at": inside},
        row | {"event_id": "2", "user_id": "u2", "timestamp": outside, "known_at": outside},
    ]
    found = open_filter(rows, tmp_path).allowed(Behaviour("bought", "GOUDA", days=30))
    assert [user for user, yes in zip(USERS, found, strict=True) if yes] == ["u1"]


def test_what_becomes_known_later_changes_no_byte(tmp_path: Path) -> None:
    before = [row for row in events() if row["known_at"] < AS_OF]
    later = [
        row | {"event_id": f"late{n}", "known_at": AS_OF + n * DAY, "item_id": "i3"}
        for n, row in enumerate(events()[:50])
    ]
    contents = []
    for name, rows in (("a", before), ("b", [*later, *before])):
        open_filter(rows, tmp_path / name)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name / "facts").iterdir()})
    assert contents[0] == contents[1] and len(contents[0]) == 3


PROFILE_RULES: list[tuple[Rule, Callable[[int], bool]]] = [
    (Profile("plan", "is", "p1"), lambda n: n % 4 != 0 and n % 3 == 1),
    (Profile("plan", "is_not", "p1"), lambda n: n % 4 != 0 and n % 3 != 1),
    (Not(Profile("plan", "is", "p1")), lambda n: n % 4 == 0 or n == 5 or n % 3 != 1),
    (Profile("plan", "in", ("p0", "p2")), lambda n: n % 4 != 0 and n % 3 in (0, 2)),
    (Profile("plan", "known"), lambda n: n % 4 != 0),
    (Profile('odd "name"; --', "at_least", 7), lambda n: n % 5 != 0 and n >= 7),
    (Profile('odd "name"; --', "at_most", 7.5), lambda n: n % 5 != 0 and n <= 7),
    (Profile('odd "name"; --', "between", (7, 9)), lambda n: 7 <= n <= 9),
    (Profile('odd "name"; --', "is", 7), lambda n: n == 7),
    (Profile('odd "name"; --', "known"), lambda n: n % 5 != 0),
    (Profile("plan", "is", "p1' OR '1'='1"), lambda n: False),
]


@pytest.mark.parametrize(("rule", "holds"), PROFILE_RULES)
def test_profile_rules(rules: RuleFilter, rule: Rule, holds: Callable[[int], bool]) -> None:
    known = [int(user[1:]) for user in USERS]
    # Of u5 nothing is known: every op is false of it, and Not of it is true.
    expected = [
        isinstance(rule, Not) if n == 5 else holds(n) for n in known
    ]  # fmt: skip
    assert rules.allowed(rule).tolist() == expected


def test_members_of_saved_audiences_are_looked_up(rules: RuleFilter) -> None:
    found = rules.allowed(Not(InAudience("a1")), {"a1": ["u1", "u2", "gone"]}.__getitem__)
    assert sorted(user for user, yes in zip(USERS, found, strict=True) if not yes) == ["u1", "u2"]
    with pytest.raises(RuleError, match="no saved audiences"):
        rules.allowed(InAudience("a1"))


def test_unknown_names_and_absent_facts_are_told(rules: RuleFilter) -> None:
    with pytest.raises(RuleError, match="nearest: 'CHEESE'"):
        rules.allowed(All((Behaviour("bought", "CHESE"),)))
    with pytest.raises(RuleError, match="unknown column 'plam'; nearest: 'plan'"):
        rules.allowed(Profile("plam", "known"))
    old = RuleFilter(pa.array(USERS), None, "old_1")
    assert old.allowed(Not(Users(("u1",)))).sum() == len(USERS) - 1
    with pytest.raises(NotCarried, match="snapshot old_1 carries no facts"):
        old.allowed(Behaviour("bought"))


def test_the_vocabulary_is_what_happened(rules: RuleFilter) -> None:
    vocabulary = rules.vocabulary
    assert vocabulary.subjects["bought"] == {
        "FOOD", "CHEESE", "GOUDA", "BRIE", "PETS", "CAT FOOD", "text i4",
    }  # fmt: skip
    assert vocabulary.subjects["paid"] == {"coupon"}
    assert "searched" not in vocabulary.subjects
    assert vocabulary.columns["plan"].values == {"p0", "p1", "p2"}
    assert vocabulary.columns['odd "name"; --'].continuous


def test_facts_are_small_groups_sorted_by_subject(rules: RuleFilter, tmp_path: Path) -> None:
    open_filter(events(), tmp_path)
    table = pq.read_table(tmp_path / "facts/behaviour.parquet")
    keys = np.stack([table[name].to_numpy() for name in ("subject", "day", "row")], axis=1)
    assert (np.lexsort(keys.T[::-1]) == np.arange(len(keys))).all()
