"""Weekly habits against a slow reference in plain Python."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import schema, transforms
from feature_repo.errors import TimeError
from feature_repo.habits import habits_weekly

Row = dict[str, Any]

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
START = datetime(2017, 5, 1, tzinfo=UTC)
ANCHOR = START + 4 * WEEK
COLUMNS = {"bill": "bought", "click": "clicked", "mini_program": "browsed"}
CATEGORIES = {
    "deep": ["GROCERY", "DAIRY", "CHEESE"],
    "other": ["GROCERY", "BAKERY", "BREAD"],
    "twice": ["TEA", "TEA", "GREEN"],  # catalogues repeat a level's name one level down
    "flat": ["CLOTHES"],
    "bare": [],
}
TEXTS = {item: f"page {item}" for item in CATEGORIES}
ITEMS = [
    {"item_id": item, "text": TEXTS[item], "categories": levels, "brand": None}
    for item, levels in CATEGORIES.items()
]


def event(
    number: int, user: str, at: datetime, *, known: datetime | None = None, **more: Any
) -> Row:
    row = {"source": "bill", "item_id": "deep", "amount": 2.5, "basket_id": None, **more}
    return {"event_id": f"e{number}", "user_id": user, "timestamp": at, "known_at": known or at,
            **row}  # fmt: skip


def built(events: list[Row], searches: list[Row] | None = None) -> pa.Table:
    rows = {"events": events, "searches": searches or [], "items": ITEMS}
    held = {
        name: pa.Table.from_pylist(listed, schema=schema.CANONICAL[name])
        for name, listed in rows.items()
    }
    with transforms.open_tables(held) as connection:
        return habits_weekly(connection, ANCHOR)


def seen(row: Row) -> datetime:
    return max(row["timestamp"], row["known_at"])


def subjects(item: str) -> set[str]:
    return set(CATEGORIES[item][:2]) or {TEXTS[item]}


def slow_habits(events: list[Row]) -> list[Row]:
    rows = []
    end = ANCHOR
    while any(seen(e) < end for e in events):
        for user in {e["user_id"] for e in events if seen(e) < end}:
            row: Row = {"user_id": user, "event_timestamp": end, "created": ANCHOR}
            for source, column in COLUMNS.items():
                baskets: dict[str, set[str]] = defaultdict(set)
                for e in events:
                    own = e["user_id"] == user and e["source"] == source
                    if own and end - WEEK <= seen(e) < end:
                        for subject in subjects(e["item_id"]):
                            baskets[subject].add(e["basket_id"] or e["event_id"])
                row[column] = sorted(baskets)
                row[f"{column}_counts"] = [float(len(baskets[each])) for each in sorted(baskets)]
            rows.append(row)
        end -= WEEK
    return sorted(rows, key=lambda row: (row["event_timestamp"], row["user_id"]))


@st.composite
def event_lists(draw: st.DrawFn) -> list[Row]:
    delays = st.sampled_from([timedelta(0), timedelta(0), HOUR, 3 * DAY, 2 * WEEK, -DAY])
    rows = []
    for number in range(draw(st.integers(1, 15))):
        at = START + draw(st.integers(0, 4 * 168 + 40)) * HOUR
        rows.append(
            event(
                number, draw(st.sampled_from(["a", "b", "c"])), at, known=at + draw(delays),
                source=draw(st.sampled_from(schema.EVENT_SOURCES)),
                item_id=draw(st.sampled_from(sorted(CATEGORIES))),
                basket_id=draw(st.sampled_from([None, "b1", "b2"])),
            )
        )  # fmt: skip
    return rows


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(event_lists())
def test_habits_are_those_of_the_slow_reference(events: list[Row]) -> None:
    if min(map(seen, events)) >= ANCHOR:
        with pytest.raises(TimeError):
            built(events)
        return
    table = built(events)
    assert table.schema.equals(schema.HABITS_WEEKLY)
    assert table.to_pylist() == slow_habits(events)


def test_a_week_by_hand() -> None:
    at = ANCHOR - DAY
    events = [
        event(0, "a", at, basket_id="x"),
        event(1, "a", at, basket_id="x", item_id="other"),  # one basket, one time of GROCERY
        event(2, "a", at, basket_id="y", item_id="twice"),
        event(3, "a", at, source="click", item_id="bare"),
        event(4, "a", at, source="click", item_id="bare"),
        event(5, "a", at, source="mini_program", item_id="flat"),
    ]
    (row,) = built(events).to_pylist()
    assert dict(zip(row["bought"], row["bought_counts"], strict=True)) == {
        "BAKERY": 1, "DAIRY": 1, "GROCERY": 1, "TEA": 1}  # fmt: skip
    assert (row["clicked"], row["clicked_counts"]) == (["page bare"], [2.0])
    assert (row["browsed"], row["browsed_counts"]) == (["CLOTHES"], [1.0])


def test_the_finest_level_is_no_habit() -> None:
    (row,) = built([event(0, "a", ANCHOR - DAY)]).to_pylist()
    assert row["bought"] == ["DAIRY", "GROCERY"]  # and not CHEESE


def test_a_late_row_counts_in_the_week_in_which_it_became_known() -> None:
    events = [
        event(0, "a", ANCHOR - 3 * WEEK),
        event(1, "a", ANCHOR - 2 * WEEK, item_id="flat", known=ANCHOR - WEEK),
        event(2, "a", ANCHOR - 2 * WEEK, item_id="other", known=ANCHOR),  # too late
    ]
    rows = built(events).to_pylist()
    assert [row["bought"] for row in rows] == [["DAIRY", "GROCERY"], [], ["CLOTHES"]]


def test_who_only_searched_has_rows_without_habits() -> None:
    """All weekly views must have the same rows, or they cannot be read side by side."""
    search = {"search_id": "s", "user_id": "s", "timestamp": START, "known_at": START,
              "text": "tea"}  # fmt: skip
    rows = built([event(0, "a", START)], [search]).to_pylist()
    own = [row for row in rows if row["user_id"] == "s"]
    assert len(own) == 4 == len(rows) - len(own)
    assert all(row[column] == [] for row in own for column in COLUMNS.values())
