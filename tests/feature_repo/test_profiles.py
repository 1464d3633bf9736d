"""Weekly profile columns against a slow reference, and against rows nobody could have known."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import schema, transforms
from feature_repo.errors import TimeError
from feature_repo.profiles import profile_weekly

Row = dict[str, Any]

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
START = datetime(2017, 1, 2, tzinfo=UTC)
ANCHOR = START + 30 * WEEK
MICROSECOND = timedelta(microseconds=1)
SPANS = (4, 12, 26)
SHORT_SPANS = (1, 2, 8)  # of baskets and spend only, and before the others

ITEMS = [
    {"item_id": "own", "text": "x", "categories": ["GROCERY", "MILK"], "brand": "Private"},
    {"item_id": "named", "text": "x", "categories": ["MEAT", "BEEF"], "brand": "National"},
    {"item_id": "bare", "text": "a page", "categories": [], "brand": None},
]
BY_ID = {row["item_id"]: row for row in ITEMS}


def event(
    number: int, user: str, at: datetime, *, known: datetime | None = None, **more: Any
) -> Row:
    row = {"source": "bill", "item_id": "own", "quantity": 1.0, "amount": 2.0, "discount": 0.5,
           "channel": "card", "basket_id": f"b{number}", "place": "7", **more}  # fmt: skip
    return {"event_id": f"e{number}", "user_id": user, "timestamp": at, "known_at": known or at,
            **row}  # fmt: skip


def exposure(number: int, user: str, at: datetime, kind: str, known: datetime | None = None) -> Row:
    return {"exposure_id": f"x{number}", "user_id": user, "timestamp": at, "known_at": known or at,
            "campaign_id": "1", "kind": kind, "text": None}  # fmt: skip


def profile(
    user: str,
    at: datetime,
    *,
    known: datetime | None = None,
    age: float | None = None,
    **words: str,
) -> Row:
    return {"user_id": user, "timestamp": at, "known_at": known or at,
            "categorical": list(words.items()),
            "continuous": [] if age is None else [("age", age)]}  # fmt: skip


def built(
    events: Iterable[Row],
    exposures: Iterable[Row] = (),
    profiles: Iterable[Row] = (),
    searches: Iterable[Row] = (),
    anchor: datetime = ANCHOR,
) -> pa.Table:
    rows = {"events": events, "exposures": exposures, "profiles": profiles, "searches": searches,
            "items": ITEMS}  # fmt: skip
    held = {
        name: pa.Table.from_pylist(list(listed), schema=schema.CANONICAL[name])
        for name, listed in rows.items()
    }
    with transforms.open_tables(held) as connection:
        return profile_weekly(connection, anchor)


def as_file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, coerce_timestamps="us")
    return sink.getvalue()


def row_of(table: pa.Table, user: str, end: datetime = ANCHOR) -> Row:
    (row,) = (r for r in table.to_pylist() if r["user_id"] == user and r["event_timestamp"] == end)
    return row


# --- the slow reference: every cell counted anew from the raw rows


def seen(row: Row) -> datetime:
    return max(row["timestamp"], row["known_at"])


def log_bin(value: float | None) -> str | None:
    if value is None:
        return None
    return "0" if value <= 0 else f"2^{math.floor(math.log2(value))}"


def ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def total(rows: list[Row], column: str) -> float:
    return sum(round(10_000 * (row[column] or 0)) for row in rows) / 10_000


def most_frequent(values: Iterable[str | None]) -> str | None:
    counts = Counter(value for value in values if value is not None)
    return min(counts, key=lambda value: (-counts[value], value), default=None)


def daypart(row: Row) -> str:
    return ("night", "morning", "afternoon", "evening")[seen(row).hour // 6]


def sums(events: list[Row], exposures: list[Row]) -> dict[str, float]:
    bills = [e for e in events if e["source"] == "bill"]
    return {
        # A basket of which a part came late counts in both weeks.
        "baskets": len({(e["basket_id"], (ANCHOR - seen(e) - MICROSECOND) // WEEK) for e in bills}),
        "spend": total(bills, "amount"),
        "units": total(bills, "quantity"),
        "discount": total(bills, "discount"),
        "lines": len(bills),
        "private_lines": sum(BY_ID[e["item_id"]]["brand"] == "Private" for e in bills),
        "coupons": sum(e["channel"] == "coupon" for e in events),
        "clicks": sum(e["source"] == "click" for e in events),
        "mini_programs": sum(e["source"] == "mini_program" for e in events),
        "exposures": sum(e["kind"] != "redeemed" for e in exposures),
        "redemptions": sum(e["kind"] == "redeemed" for e in exposures),
    }


def slow_row(user: str, end: datetime, events: list[Row], exposures: list[Row]) -> Row:
    own = [e for e in events if e["user_id"] == user and seen(e) < end]
    # What happened before the user's first window has no row to stand in.
    first = min(map(seen, own))
    begin = end
    while begin > first:
        begin -= WEEK
    shown = [x for x in exposures if x["user_id"] == user and begin <= seen(x) < end]
    of = {
        span: sums([e for e in own if seen(e) >= end - span * WEEK],
                   [x for x in shown if seen(x) >= end - span * WEEK])
        for span in (*SHORT_SPANS, *SPANS)
    }  # fmt: skip
    bought = [e for e in own if e["source"] == "bill" and seen(e) >= end - 12 * WEEK]
    month_before = [e for e in own if e["source"] == "bill"
                    and end - 8 * WEEK <= seen(e) < end - 4 * WEEK]  # fmt: skip
    half = of[26]
    row: Row = {
        "user_id": user,
        "event_timestamp": end,
        "created": ANCHOR,
        "main_store": most_frequent(e["place"] for e in bought),
        "top_department": most_frequent(
            next(iter(BY_ID[e["item_id"]]["categories"]), None) for e in bought
        ),
        "main_channel": most_frequent(e["channel"] for e in bought),
        "main_daypart": most_frequent(map(daypart, bought)),
        "price_tier": log_bin(ratio(2 * half["spend"], half["units"])),
        "brand_tier": f"{math.floor(5 * min(half['private_lines'] / half['lines'], 0.999))}/5"
        if half["lines"]
        else None,
        "agg_recency_days": (end - max(map(seen, own))) / DAY,
        "agg_tenure_days": (end - first) / DAY,
    }
    for name in half:
        if name not in ("units", "lines", "private_lines"):
            spans = (*SHORT_SPANS, *SPANS) if name in ("baskets", "spend") else SPANS
            row |= {f"agg_{name}_{span}w": of[span][name] for span in spans}
    recency = row["agg_recency_days"]
    bins = [(7, "this week"), (14, "last week"), (28, "this month"), (56, "last month")]
    row |= {
        "agg_basket_value": ratio(half["spend"], half["baskets"]),
        "agg_discount_share": ratio(half["discount"], half["spend"] + half["discount"]),
        "agg_spend_trend": ratio(of[4]["spend"], of[12]["spend"]),
        "agg_spend_change": ratio(of[4]["spend"], total(month_before, "amount")),
        "agg_overdue": recency * half["baskets"] / min(row["agg_tenure_days"], 182),
        "agg_recency_bin": next((word for days, word in bins if recency < days), "long ago"),
        "agg_frequency_bin": log_bin(of[12]["baskets"]),
        "agg_spend_bin": log_bin(of[12]["spend"]),
    }
    return row


def slow_profiles(events: list[Row], exposures: list[Row]) -> list[Row]:
    rows = []
    for k in range(60):
        end = ANCHOR - k * WEEK
        users = {e["user_id"] for e in events if seen(e) < end and seen(e) < ANCHOR}
        rows += [slow_row(user, end, events, exposures) for user in sorted(users, reverse=True)]
    return rows[::-1]


hours = st.integers(0, 30 * 168 + 30).map(lambda n: START + n * HOUR)
delays = st.sampled_from([timedelta(0), timedelta(0), HOUR, 10 * DAY, -DAY])
cents = st.integers(0, 4_000).map(lambda n: n / 100)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    people = st.sampled_from(["a", "b"])
    events = []
    for number in range(draw(st.integers(1, 25))):
        at = draw(hours)
        events.append(
            event(
                number, draw(people), at, known=at + draw(delays),
                source=draw(st.sampled_from(["bill", "bill", "bill", "click", "mini_program"])),
                item_id=draw(st.sampled_from(sorted(BY_ID))),
                quantity=float(draw(st.integers(0, 5))), amount=draw(cents), discount=draw(cents),
                channel=draw(st.sampled_from([None, "card", "coupon"])),
                basket_id=f"b{draw(st.integers(0, 4))}",
                place=draw(st.sampled_from([None, "1", "2", "10"])),
            )
        )  # fmt: skip
    exposures = []
    for number in range(draw(st.integers(0, 6))):
        at = draw(hours)
        kind = draw(st.sampled_from(["sent", "click", "redeemed"]))
        exposures.append(exposure(number, draw(people), at, kind, at + draw(delays)))
    return events, exposures


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_columns_are_those_of_the_slow_reference(history: tuple[list[Row], list[Row]]) -> None:
    events, exposures = history
    if min(map(seen, events)) >= ANCHOR:
        return
    table = built(events, exposures)
    expected = slow_profiles(events, exposures)
    assert table.column_names == list(expected[0])
    for row, slow in zip(table.to_pylist(), expected, strict=True):
        close = {k: pytest.approx(v) if isinstance(v, float) else v for k, v in slow.items()}
        assert row == close, (row["user_id"], row["event_timestamp"])


def test_types_are_strings_doubles_and_keys() -> None:
    """The tabular encoder takes a string for a category and a double for a quantity."""
    table = built([event(0, "a", START)], profiles=[profile("a", START, age=40.0, plan="gold")])
    kinds = {field.name: field.type for field in table.schema}
    assert (kinds.pop("user_id"), kinds.pop("event_timestamp"), kinds.pop("created")) == (
        pa.string(), schema.TIMESTAMP, schema.TIMESTAMP)  # fmt: skip
    assert set(kinds.values()) == {pa.string(), pa.float64()}
    assert kinds["profile_plan"] == pa.string() and kinds["profile_age"] == pa.float64()
    hand_made = {name for name in kinds if name.startswith(schema.AGGREGATE_PREFIX)}
    assert {"agg_recency_days", "agg_spend_bin", "agg_baskets_4w"} <= hand_made
    assert not {"main_store", "price_tier", "profile_plan"} & hand_made


def test_the_largest_numbers_that_are_let_in_add_up() -> None:
    most = dict.fromkeys(("amount", "quantity", "discount"), schema.MAX_NUMBER)
    row = row_of(built(event(n, "a", ANCHOR - DAY, **most) for n in range(9_000)), "a")
    for name in ("spend", "discount"):
        assert row[f"agg_{name}_26w"] == 9_000 * schema.MAX_NUMBER


def test_bins_do_not_move_with_other_users() -> None:
    alone = built([event(0, "a", ANCHOR - DAY, amount=3.0)])
    crowd = [event(n, f"z{n}", ANCHOR - DAY, amount=1e5) for n in range(1, 30)]
    together = built([event(0, "a", ANCHOR - DAY, amount=3.0), *crowd])
    assert row_of(together, "a") == row_of(alone, "a")


# --- the source's own columns


def test_own_columns_are_the_latest_known_before_the_windows_end() -> None:
    end = ANCHOR - 2 * WEEK
    rows = [
        profile("a", START, city="Rome", age=40.0),
        profile("a", end, city="Oslo", age=41.0),  # at the end: not in that window
        profile("a", START + WEEK, known=ANCHOR - WEEK, plan="gold"),  # late
        profile("b", ANCHOR, city="Nice"),  # at the anchor: in none
    ]
    table = built([event(0, "a", START), event(1, "b", START)], profiles=rows)
    history = [
        (row["profile_city"], row["profile_age"], row["profile_plan"])
        for row in (row_of(table, "a", ANCHOR - k * WEEK) for k in (2, 1, 0))
    ]
    assert history[:2] == [("Rome", 40.0, None), ("Oslo", 41.0, None)]
    assert history[2] == ("Oslo", 41.0, "gold")  # which says nothing of city and age
    assert row_of(table, "b")["profile_city"] is None


def test_of_two_snapshots_that_arrived_together_the_later_one_counts() -> None:
    """A monthly delivery holds several states of one user: the state valid last is the present."""
    rows = [profile("a", START + k * WEEK, known=START + 9 * WEEK, city=city)
            for k, city in enumerate(["Rome", "Oslo", "Nice", "Bonn"])]  # fmt: skip
    for order in (rows, rows[::-1], rows[2:] + rows[:2]):
        table = built([event(0, "a", START)], profiles=order)
        assert row_of(table, "a")["profile_city"] == "Bonn"


def test_rows_of_one_moment_complete_each_other() -> None:
    """As files do that tell different columns of the same user."""
    later = START + WEEK
    rows = [profile("a", START, city="Rome"), profile("a", START, age=40.0),
            profile("a", later, plan="gold"), profile("a", later, city="Oslo")]  # fmt: skip
    for order in (rows, rows[::-1], rows[2:] + rows[:2]):
        table = built([event(0, "a", START)], profiles=order)
        first, now = row_of(table, "a", later), row_of(table, "a")
        names = ("profile_city", "profile_age", "profile_plan")
        assert [first[name] for name in names] == ["Rome", 40.0, None]
        assert [now[name] for name in names] == ["Oslo", 40.0, "gold"]


def test_names_of_own_columns_may_hold_quotes() -> None:
    odd = """it's "a" name"""
    table = built([event(0, "a", START)], profiles=[profile("a", START, **{odd: "v'1"})])
    assert row_of(table, "a")[f"profile_{odd}"] == "v'1"


def test_without_profiles_there_are_no_own_columns() -> None:
    names = built([event(0, "a", START)]).column_names
    assert not [name for name in names if name.startswith("profile_")]


# --- what must not change a byte


def world() -> tuple[list[Row], list[Row], list[Row], list[Row]]:
    events, exposures, profiles, searches = [], [], [], []
    for number in range(250):
        at = START + (number * 101 % 5_000) * HOUR
        events.append(
            event(
                number, f"u{number % 25}", at, item_id=sorted(BY_ID)[number % 3],
                source=schema.EVENT_SOURCES[number % 3], amount=number / 7, place=str(number % 4),
                channel=["card", "coupon", None][number % 3], discount=number / 11,
            )
        )  # fmt: skip
        if number % 5 == 0:
            kind = ("sent", "redeemed")[number % 2]
            exposures.append(exposure(number, f"u{number % 25}", at, kind))
            profiles.append(
                profile(f"u{number % 25}", at, city=f"city {number % 6}", age=number / 3)
            )
            searches.append({"search_id": str(number), "user_id": f"s{number % 3}", "timestamp": at,
                             "known_at": at, "text": "tea"})  # fmt: skip
    return events, exposures, profiles, searches


def test_rows_at_and_after_the_anchor_and_late_rows_change_nothing() -> None:
    events, exposures, profiles, searches = world()
    planted: tuple[list[Row], list[Row], list[Row], list[Row]] = ([], [], [], [])
    for n, late in enumerate([ANCHOR, ANCHOR + MICROSECOND, ANCHOR + 5 * DAY]):
        for m, (user, at) in enumerate(
            [("u1", late), ("new", late), ("u2", START), ("u3", ANCHOR - DAY)]
        ):
            number = 900 + 10 * n + m
            planted[0].append(event(number, user, at, known=late, amount=1e6, place="planted"))
            planted[1].append(exposure(number, user, at, "redeemed", known=late))
            planted[2].append(profile(user, at, known=late, city="planted", secret="yes"))
            planted[3].append({"search_id": str(number), "user_id": user, "timestamp": at,
                               "known_at": late, "text": "planted"})  # fmt: skip
    clean = built(events, exposures, profiles, searches)
    leaky = built(events + planted[0], exposures + planted[1], profiles + planted[2],
                  searches + planted[3])  # fmt: skip
    assert as_file(leaky) == as_file(clean)
    in_time = ANCHOR - DAY
    for number, extra in enumerate(
        [([event(990, "u1", in_time)], [], []), ([], [exposure(990, "u1", in_time, "sent")], []),
         ([], [], [profile("u1", in_time, city="elsewhere")])]
    ):  # fmt: skip
        seen_now = built(events + extra[0], exposures + extra[1], profiles + extra[2], searches)
        assert as_file(seen_now) != as_file(clean), number


def test_the_order_of_the_input_does_not_matter() -> None:
    rows = world()
    assert as_file(built(*rows)) == as_file(built(*(each[::-1] for each in rows)))


def test_a_later_build_repeats_the_windows_of_an_earlier_one() -> None:
    rows = world()
    middle = ANCHOR - 6 * WEEK
    earlier, later = built(*rows, anchor=middle), built(*rows)
    kept = later.filter(pa.array([end <= middle for end in later["event_timestamp"].to_pylist()]))
    assert len(earlier) and kept.drop_columns("created").equals(earlier.drop_columns("created"))


def test_a_date_before_the_data_is_refused_with_the_dates() -> None:
    with pytest.raises(TimeError, match="as_of=2017-01-02.*2017-01-02"):
        built([event(0, "a", START)], anchor=START)
