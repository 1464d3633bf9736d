"""Weekly purchases against a slow reference in plain Python."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import schema, transforms
from feature_repo.purchases import purchases_weekly

Row = dict[str, Any]

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
START = datetime(2017, 5, 1, tzinfo=UTC)
ANCHOR = START + 4 * WEEK
CATEGORIES = {"deep": ["FOOD", "DAIRY", "CHEESE"], "flat": ['CLO"THES'], "bare": []}
TEXTS = {"deep": "gouda 8 oz", "flat": "", "bare": "card"}
ITEMS = [
    {"item_id": item, "text": TEXTS[item], "categories": levels, "brand": None}
    for item, levels in CATEGORIES.items()
]


def event(
    number: int, user: str, at: datetime, *, known: datetime | None = None, **more: Any
) -> Row:
    row = {"source": "bill", "item_id": "deep", **more}
    return {"event_id": f"e{number}", "user_id": user, "timestamp": at, "known_at": known or at,
            **row}  # fmt: skip


def built(events: list[Row], anchor: datetime = ANCHOR) -> list[Row]:
    held = {
        "events": pa.Table.from_pylist(events, schema=schema.EVENTS),
        "items": pa.Table.from_pylist(ITEMS, schema=schema.ITEMS),
    }
    with transforms.open_tables(held) as connection:
        table = purchases_weekly(connection, anchor)
    assert table.schema.equals(schema.PURCHASES_WEEKLY)
    return table.to_pylist()


def seen(row: Row) -> datetime:
    return max(row["timestamp"], row["known_at"])


def slow_purchases(events: list[Row]) -> list[Row]:
    first: dict[tuple[str, str, Any], Row] = {}
    for row in sorted(events, key=lambda e: (seen(e), e["timestamp"])):
        if row["source"] == "bill" and seen(row) < ANCHOR:
            first.setdefault((row["user_id"], row["item_id"], row["timestamp"].date()), row)
    weeks: dict[tuple[datetime, str], list[tuple[int, str]]] = {}
    for (user, item, _), row in first.items():
        end = ANCHOR
        while not end - WEEK <= seen(row) < end:
            end -= WEEK
        product = {"text": TEXTS[item], "categories": CATEGORIES[item]}
        at = round(row["timestamp"].timestamp() * 1e6)
        named = json.dumps(product, separators=(",", ":"))
        weeks.setdefault((end, user), []).append((at, named))
    return [
        {
            "user_id": user, "event_timestamp": end, "created": ANCHOR,
            "products": [named for _, named in sorted(found)],
            "bought_at": [at for at, _ in sorted(found)],
        }
        for (end, user), found in sorted(weeks.items())
    ]  # fmt: skip


@st.composite
def event_lists(draw: st.DrawFn) -> list[Row]:
    delays = st.sampled_from([timedelta(0), timedelta(0), HOUR, 3 * DAY, 2 * WEEK, -DAY])
    rows = []
    for number in range(draw(st.integers(1, 15))):
        at = START + draw(st.integers(0, 672)) // 5 * 5 * HOUR  # several fall on one day
        rows.append(
            event(
                number, draw(st.sampled_from(["a", "b"])), at, known=at + draw(delays),
                source=draw(st.sampled_from(["bill", "bill", "click"])),
                item_id=draw(st.sampled_from(sorted(CATEGORIES))),
            )
        )  # fmt: skip
    return rows


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(event_lists())
def test_purchases_are_those_of_the_slow_reference(events: list[Row]) -> None:
    assert built(events) == slow_purchases(events)


def test_a_product_counts_once_a_day() -> None:
    at = ANCHOR - DAY
    events = [event(0, "a", at + 5 * HOUR), event(1, "a", at), event(2, "a", at, item_id="bare"),
              event(3, "a", at + DAY - HOUR), event(4, "a", at - HOUR)]  # fmt: skip
    (row,) = built(events)
    assert row["bought_at"] == [round(t.timestamp() * 1e6) for t in (at - HOUR, at, at)]


def test_a_repeat_that_becomes_known_later_rewrites_no_week() -> None:
    at = ANCHOR - 2 * WEEK + 5 * HOUR
    events = [event(0, "a", at)]
    before = built(events)
    late = event(1, "a", at - HOUR, known=ANCHOR - DAY)
    assert built([*events, late]) == before


def test_nothing_known_at_the_anchor_or_after_is_read() -> None:
    before = built([event(0, "a", START)])
    more = [event(1, "a", ANCHOR), event(2, "a", START + DAY, known=ANCHOR)]
    assert built([event(0, "a", START), *more]) == before


def test_the_weeks_before_an_earlier_anchor_are_the_same() -> None:
    events = [event(n, "a", START + n * 3 * DAY) for n in range(9)]
    late, early = built(events), built(events, ANCHOR - WEEK)
    for row in (*late, *early):
        del row["created"]
    assert late[: len(early)] == early and len(late) > len(early)
