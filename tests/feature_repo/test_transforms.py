"""Weekly rows and facts against slow references, and against rows nobody could have known."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo import schema, transforms
from feature_repo.errors import TimeError
from feature_repo.habits import habits_weekly
from feature_repo.outcomes import outcomes
from feature_repo.profiles import profile_weekly
from feature_repo.purchases import purchases_weekly

Row = dict[str, Any]
Build = Callable[[duckdb.DuckDBPyConnection, datetime], pa.Table]

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
MICROSECOND = timedelta(microseconds=1)
START = datetime(2017, 5, 1, tzinfo=UTC)
ANCHOR = START + 5 * WEEK

ITEMS = [
    {"item_id": "deep", "text": "x", "categories": ["GROCERY", "DAIRY", "CHEESE"], "brand": None},
    {"item_id": "other", "text": "x", "categories": ["GROCERY", "DAIRY", "MILK"], "brand": None},
    {"item_id": "flat", "text": "x", "categories": ["CLOTHES"], "brand": "Private"},
    {"item_id": "bare", "text": "a page", "categories": [], "brand": None},
]
CATEGORIES = {row["item_id"]: row["categories"] or [row["text"]] for row in ITEMS}
LINES = {"deep": "DAIRY: CHEESE", "other": "DAIRY: MILK", "flat": "CLOTHES", "bare": "a page"}
COLUMNS = {"bill": "bills", "click": "clicks", "mini_program": "mini_programs"}


def event(
    number: int, user: str, at: datetime, *, known: datetime | None = None, **more: Any
) -> Row:
    row = {"source": "bill", "item_id": "deep", "amount": 2.5, "basket_id": None, **more}
    return {"event_id": f"e{number}", "user_id": user, "timestamp": at, "known_at": known or at,
            **row}  # fmt: skip


def search(number: int, user: str, at: datetime, text: str, known: datetime | None = None) -> Row:
    return {"search_id": f"s{number}", "user_id": user, "timestamp": at, "known_at": known or at,
            "text": text}  # fmt: skip


def tables(events: Iterable[Row] = (), searches: Iterable[Row] = ()) -> dict[str, pa.Table]:
    rows = {"events": list(events), "searches": list(searches), "items": ITEMS}
    return {
        name: pa.Table.from_pylist(listed, schema=schema.CANONICAL[name])
        for name, listed in rows.items()
    }


def built(build: Build, held: dict[str, pa.Table] | Path, anchor: datetime = ANCHOR) -> pa.Table:
    with transforms.open_tables(held) as connection:
        return build(connection, anchor)


def as_file(table: pa.Table) -> bytes:
    """What a stage would write: two tables with the same bytes here are the same on disk."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, coerce_timestamps="us")
    return sink.getvalue()


def all_facts(connection: duckdb.DuckDBPyConnection, anchor: datetime) -> pa.Table:
    cutoffs = [anchor - 2 * WEEK, anchor - 3 * WEEK]
    return transforms.facts(connection, cutoffs, horizon_days=14, known_before=anchor)


def all_subjects(connection: duckdb.DuckDBPyConnection, anchor: datetime) -> pa.Table:
    return transforms.catalogue(connection, all_facts(connection, anchor), known_before=anchor)


def all_outcomes(connection: duckdb.DuckDBPyConnection, anchor: datetime) -> pa.Table:
    return outcomes(connection, [anchor - 2 * WEEK, anchor - 4 * WEEK], known_before=anchor)


BUILDS = [
    transforms.behaviour_weekly, transforms.search_weekly, habits_weekly, all_facts, all_subjects,
    all_outcomes,
]  # fmt: skip
each_build = pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)


# --- slow references


def happened(events: list[Row]) -> list[Row]:
    """All but the bills whose payment failed: they bought nothing."""
    return [e for e in events if e["source"] != "bill" or e.get("status") != "failed"]


def seen(row: Row) -> datetime:
    return max(row["timestamp"], row["known_at"])


def end_of(row: Row, anchor: datetime) -> datetime:
    """The window's end, found by stepping back week by week."""
    end = anchor
    while end - WEEK > seen(row):
        end -= WEEK
    return end


def dense(rows: list[Row], anchor: datetime) -> list[tuple[datetime, str]]:
    first: dict[str, datetime] = {}
    for row in rows:
        if seen(row) < anchor:
            end = end_of(row, anchor)
            first[row["user_id"]] = min(first.get(row["user_id"], end), end)
    cells = []
    for user, end in first.items():
        while end <= anchor:
            cells.append((end, user))
            end += WEEK
    return sorted(cells)


def slow_behaviour(events: list[Row], searches: list[Row], anchor: datetime) -> list[Row]:
    rows = []
    for end, user in dense(events + searches, anchor):
        inside = [e for e in events
                  if e["user_id"] == user and end - WEEK <= seen(e) < end]  # fmt: skip
        row: Row = {"user_id": user, "event_timestamp": end, "created": anchor}
        for source, column in COLUMNS.items():
            baskets: dict[str, set[str]] = defaultdict(set)
            for each in inside:
                if each["source"] == source:
                    baskets[LINES[each["item_id"]]].add(each["basket_id"] or each["event_id"])
            row[column] = sorted(baskets)
            row[f"{column[:-1]}_counts"] = [float(len(baskets[line])) for line in sorted(baskets)]
        row["num_events"] = len(inside)
        row["amount"] = sum(round(100 * (e["amount"] or 0)) for e in inside) / 100
        rows.append(row)
    return rows


def slow_searches(events: list[Row], searches: list[Row], anchor: datetime) -> list[Row]:
    rows = []
    for end, user in dense(events + searches, anchor):
        asked: dict[str, int] = defaultdict(int)
        for each in searches:
            if each["user_id"] == user and end - WEEK <= seen(each) < end:
                asked[each["text"]] += 1
        rows.append({"user_id": user, "event_timestamp": end, "created": anchor,
                     "searches": sorted(asked),
                     "search_counts": [float(asked[text]) for text in sorted(asked)]})  # fmt: skip
    return rows


def slow_facts(
    events: list[Row], searches: list[Row], cutoff: datetime, days: int, known: datetime
) -> list[Row]:
    def inside(row: Row) -> bool:
        return cutoff <= row["timestamp"] < cutoff + days * DAY and seen(row) < known

    # (user, kind, subject) → level, baskets, cents; None where no amount was given at all
    found: dict[tuple[str, str, str], tuple[int, set[str], list[float | None]]] = {}

    def add(key: tuple[str, str, str], level: int, basket: str, amount: float | None) -> None:
        held = found.setdefault(key, (level, set(), []))
        held[1].add(basket)
        held[2].append(amount)

    kinds = {"bill": "purchase", "click": "click", "mini_program": "browsing"}
    for each in filter(inside, events):
        basket = each["basket_id"] or each["event_id"]
        bare = each["item_id"] == "bare"
        for level, subject in enumerate(CATEGORIES[each["item_id"]], start=0 if bare else 1):
            key = (each["user_id"], kinds[each["source"]], subject)
            add(key, level, basket, each["amount"])
        if each["source"] == "bill" and each.get("channel"):
            add((each["user_id"], "channel", each["channel"]), 0, basket, each["amount"])
    for each in filter(inside, searches):
        add((each["user_id"], "search", each["text"]), 0, each["search_id"], None)
    rows = []
    for (user, kind, subject), (level, baskets, amounts) in sorted(found.items()):
        cents = [round(100 * amount) for amount in amounts if amount is not None]
        rows.append({"user_id": user, "cutoff": cutoff, "kind": kind, "subject": subject,
                     "level": level, "count": float(len(baskets)),
                     "amount": sum(cents) / 100 if cents else None})  # fmt: skip
    return rows


# --- references against SQL

users = st.sampled_from(["a", "b", "c"])
hours = st.integers(0, 5 * 168 + 40).map(lambda n: START + n * HOUR)
delays = st.sampled_from([timedelta(0), timedelta(0), HOUR, 3 * DAY, 2 * WEEK, -DAY])


@st.composite
def event_lists(draw: st.DrawFn) -> list[Row]:
    rows = []
    for number in range(draw(st.integers(1, 12))):
        at = draw(hours)
        rows.append(
            event(
                number, draw(users), at, known=at + draw(delays),
                source=draw(st.sampled_from(schema.EVENT_SOURCES)),
                item_id=draw(st.sampled_from(sorted(LINES))),
                amount=draw(st.none() | st.integers(0, 5_000).map(lambda cents: cents / 100)),
                basket_id=draw(st.sampled_from([None, "b1", "b2"])),
                channel=draw(st.sampled_from([None, "card", "coupon"])),
                status=draw(st.sampled_from([None, *schema.STATUSES])),
            )
        )  # fmt: skip
    return rows


@st.composite
def search_lists(draw: st.DrawFn) -> list[Row]:
    texts = st.sampled_from(["tea", "Tea", "ärmel", "zebra"])
    times = [draw(hours) for _ in range(draw(st.integers(0, 6)))]
    return [
        search(n, draw(users), at, draw(texts), at + draw(delays)) for n, at in enumerate(times)
    ]


quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(event_lists(), search_lists())
def test_weekly_rows_are_those_of_the_slow_reference(
    events: list[Row], searches: list[Row]
) -> None:
    held, events = tables(events, searches), happened(events)
    if min(map(seen, events + searches), default=ANCHOR) >= ANCHOR:
        with pytest.raises(TimeError):
            built(transforms.behaviour_weekly, held)
        return
    weekly = built(transforms.behaviour_weekly, held)
    assert weekly.schema.equals(schema.BEHAVIOUR_WEEKLY)
    assert weekly.to_pylist() == slow_behaviour(events, searches, ANCHOR)
    asked = built(transforms.search_weekly, held)
    assert asked.schema.equals(schema.SEARCH_WEEKLY)
    assert asked.to_pylist() == slow_searches(events, searches, ANCHOR)


@quick
@given(event_lists(), search_lists(), st.integers(1, 3), st.sampled_from([7, 14]))
def test_facts_are_those_of_the_slow_reference(
    events: list[Row], searches: list[Row], week: int, days: int
) -> None:
    cutoffs = [START + week * WEEK, START + (week - 1) * WEEK]
    with transforms.open_tables(tables(events, searches)) as connection:
        facts = transforms.facts(connection, cutoffs, horizon_days=days, known_before=ANCHOR)
    assert facts.schema.equals(schema.FACTS)
    counted = happened(events)
    expected = [slow_facts(counted, searches, cutoff, days, ANCHOR) for cutoff in cutoffs]
    assert facts.to_pylist() == expected[0] + expected[1]


# --- boundaries


def test_a_window_holds_its_start_and_not_its_end() -> None:
    events = [event(0, "start", ANCHOR - WEEK), event(1, "last", ANCHOR - MICROSECOND),
              event(2, "before", ANCHOR - WEEK - MICROSECOND), event(3, "end", ANCHOR)]  # fmt: skip
    weekly = built(transforms.behaviour_weekly, tables(events))
    filled = {
        (row["user_id"], row["event_timestamp"]) for row in weekly.to_pylist() if row["bills"]
    }
    assert filled == {("start", ANCHOR), ("last", ANCHOR), ("before", ANCHOR - WEEK)}
    assert "end" not in weekly["user_id"].to_pylist()


def test_a_late_row_counts_in_the_window_in_which_it_became_known() -> None:
    events = [event(0, "a", ANCHOR - 3 * WEEK), event(1, "a", ANCHOR - 2 * WEEK, item_id="flat",
              known=ANCHOR - WEEK)]  # fmt: skip
    rows = built(transforms.behaviour_weekly, tables(events)).to_pylist()
    assert [row["bills"] for row in rows] == [["DAIRY: CHEESE"], [], ["CLOTHES"]]


def test_empty_weeks_have_rows_from_the_first_week_on() -> None:
    events = [event(0, "a", START), event(1, "b", ANCHOR - DAY)]
    rows = built(transforms.behaviour_weekly, tables(events)).to_pylist()
    ends = [row["event_timestamp"] for row in rows if row["user_id"] == "a"]
    assert ends == [START + k * WEEK for k in range(1, 6)]
    assert [row["num_events"] for row in rows if row["user_id"] == "a"] == [1, 0, 0, 0, 0]
    assert sum(row["user_id"] == "b" for row in rows) == 1


def test_a_fact_lies_in_the_horizon_and_was_known_in_time() -> None:
    cutoff = ANCHOR - 2 * WEEK
    end = cutoff + 7 * DAY
    moments = {"at": cutoff, "last": end - MICROSECOND, "before": cutoff - MICROSECOND, "end": end}
    events = [event(n, user, at) for n, (user, at) in enumerate(moments.items())]
    events += [event(7, "late", cutoff, known=ANCHOR), event(8, "slow", cutoff, known=ANCHOR - DAY)]
    with transforms.open_tables(tables(events)) as connection:
        facts = transforms.facts(connection, [cutoff], horizon_days=7, known_before=ANCHOR)
    assert set(facts["user_id"].to_pylist()) == {"at", "last", "slow"}


def test_a_subject_twice_in_one_taxonomy_is_paid_for_once() -> None:
    """Catalogues repeat a level's name one level down: the money must not double."""
    held = tables([event(0, "a", START, item_id="twice", amount=5.0)])
    item = {"item_id": "twice", "text": "x", "categories": ["D", "TEA", "TEA"], "brand": None}
    held["items"] = pa.Table.from_pylist([item], schema=schema.ITEMS)
    with transforms.open_tables(held) as connection:
        rows = transforms.facts(connection, [START], horizon_days=7, known_before=ANCHOR)
    tea = next(row for row in rows.to_pylist() if row["subject"] == "TEA")
    assert (tea["level"], tea["count"], tea["amount"]) == (2, 1.0, 5.0)


def test_the_catalogue_names_each_subject_once_with_its_place() -> None:
    events = [
        event(0, "a", START, channel="card"),
        event(1, "b", START, item_id="other"),
        event(2, "b", START, item_id="bare", source="click"),
    ]
    with transforms.open_tables(tables(events, [search(0, "a", START, "tea")])) as connection:
        facts = transforms.facts(connection, [START], horizon_days=7, known_before=ANCHOR)
        found = transforms.catalogue(connection, facts, known_before=ANCHOR).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("channel", "card", 0, "", 1),
        ("click", "a page", 0, "", 1),
        ("purchase", "GROCERY", 1, "", 2),
        ("purchase", "DAIRY", 2, "GROCERY", 2),
        ("purchase", "CHEESE", 3, "DAIRY", 1),
        ("purchase", "MILK", 3, "DAIRY", 1),
        ("search", "tea", 0, "", 1),
    ]


def test_a_name_under_several_others_belongs_where_it_is_seen_most() -> None:
    events = [event(n, "a", START, item_id=item) for n, item in enumerate("xyy")]
    held = tables(events)
    held["items"] = pa.Table.from_pylist(
        [
            {"item_id": item, "text": "t", "categories": [above, "TEA"], "brand": None}
            for item, above in (("x", "ZEST"), ("y", "DRINKS"))
        ],
        schema=schema.ITEMS,
    )
    with transforms.open_tables(held) as connection:
        facts = transforms.facts(connection, [START], horizon_days=7, known_before=ANCHOR)
        found = transforms.catalogue(connection, facts, known_before=ANCHOR).to_pylist()
    assert {row["name"]: row["parent"] for row in found}["TEA"] == "DRINKS"


def test_users_before_are_those_known_strictly_before() -> None:
    events = [event(0, "b", START), event(1, "at", ANCHOR), event(2, "late", START, known=ANCHOR)]
    searches = [search(0, "a", START + DAY, "tea"), search(1, "s", ANCHOR, "tea")]
    with transforms.open_tables(tables(events, searches)) as connection:
        assert transforms.users_before(connection, ANCHOR) == ["a", "b"]
        assert transforms.users_before(connection, ANCHOR + MICROSECOND) == ["a", "at", "b", "late",
                                                                             "s"]  # fmt: skip


# --- what must not change a byte


def world() -> tuple[list[Row], list[Row]]:
    """30 users over five weeks, everybody with several sources."""
    events, searches = [], []
    for number in range(300):
        at = START + (number * 37 % 840) * HOUR
        if at >= ANCHOR - HOUR:
            continue
        events.append(
            event(
                number, f"u{number * 7 % 30}", at, source=schema.EVENT_SOURCES[number % 3],
                item_id=sorted(LINES)[number * 5 % 4], amount=number / 7,
                basket_id=f"b{number % 90}", channel=["card", "coupon"][number % 2],
            )
        )  # fmt: skip
        if number % 4 == 0:
            searches.append(search(number, f"u{number % 30}", at, f"text {number % 11}"))
    return events, searches


@each_build
def test_rows_at_and_after_the_anchor_and_late_rows_change_nothing(build: Build) -> None:
    events, searches = world()
    future = [ANCHOR, ANCHOR + MICROSECOND, ANCHOR + 3 * DAY]
    planted = [event(900 + n, user, at, amount=1e6) for n, (user, at) in enumerate(
        (user, at) for user in ("u1", "new") for at in future)]  # fmt: skip
    for n, known in enumerate(future):
        planted.append(event(950 + n, "u2", ANCHOR - 10 * DAY, known=known, amount=1e6))
        planted.append(event(960 + n, "early", START - 9 * WEEK, known=known))
    asked = [search(900 + n, "u3", at, "planted") for n, at in enumerate(future)]
    asked += [search(910, "u3", START, "planted", known=ANCHOR)]
    clean = built(build, tables(events, searches))
    leaky = built(build, tables(events + planted, searches + asked))
    assert len(clean) > 30
    assert as_file(leaky) == as_file(clean)
    visible = [event(999 - n, "u1", ANCHOR - d * DAY, amount=1e4) for n, d in enumerate((1, 10))]
    heard = [search(999, "u1", ANCHOR - 10 * DAY, "planted")]
    seen_now = built(build, tables(events + visible, searches + heard))
    assert as_file(seen_now) != as_file(clean)  # what is in time does show


@pytest.mark.parametrize(
    "build", [*BUILDS, profile_weekly, purchases_weekly], ids=lambda build: build.__name__
)
def test_a_bill_that_was_not_paid_bought_nothing(build: Build) -> None:
    """Nobody's past or future holds it, whoever has other events and whoever has none."""
    events, searches = world()
    bought = [
        event(900 + n, user, ANCHOR - d * DAY, amount=1e4, channel="card", basket_id=f"x{n}")
        for n, (user, d) in enumerate((user, d) for user in ("u1", "new") for d in (1, 10, 24))
    ]
    without = as_file(built(build, tables(events, searches)))
    failed = [{**row, "status": "failed"} for row in bought]
    assert as_file(built(build, tables(events + failed, searches))) == without
    paid = [{**row, "status": "successful"} for row in bought]
    one = as_file(built(build, tables(events + paid, searches)))
    assert one != without
    assert as_file(built(build, tables(events + bought, searches))) == one  # unsaid is paid


def test_a_page_that_was_opened_in_vain_was_opened() -> None:
    """A payment's status says nothing of clicks and mini-programs."""
    visits = [event(n, "a", START, source=source, item_id="bare", status="failed")
              for n, source in enumerate(("click", "mini_program"))]  # fmt: skip
    (row, *_) = built(transforms.behaviour_weekly, tables(visits)).to_pylist()
    assert (row["clicks"], row["mini_programs"], row["num_events"]) == (["a page"], ["a page"], 2)


@each_build
def test_the_order_of_the_input_does_not_matter(build: Build) -> None:
    events, searches = world()
    forward = built(build, tables(events, searches))
    backward = built(build, tables(events[::-1], searches[::-1]))
    mixed = built(build, tables(events[::2] + events[1::2], searches[1::2] + searches[::2]))
    assert as_file(forward) == as_file(backward) == as_file(mixed)


@pytest.mark.parametrize("build", BUILDS[:3], ids=lambda build: build.__name__)
def test_a_later_build_repeats_the_windows_of_an_earlier_one(build: Build) -> None:
    events, searches = world()
    events.append(event(900, "u1", START + DAY, known=ANCHOR - HOUR))
    held = tables(events, searches)
    earlier, later = built(build, held, ANCHOR - 2 * WEEK), built(build, held, ANCHOR)
    known = [end <= ANCHOR - 2 * WEEK for end in later["event_timestamp"].to_pylist()]
    assert (
        later.filter(pa.array(known))
        .drop_columns("created")
        .equals(earlier.drop_columns("created"))
    )


@each_build
def test_parquet_and_arrow_tables_give_the_same(build: Build, tmp_path: Path) -> None:
    events, searches = world()
    held = tables(events, searches)
    for name, canonical in schema.CANONICAL.items():
        table = held.get(name, canonical.empty_table())
        pq.write_table(table, tmp_path / f"{name}.parquet", coerce_timestamps="us")
    assert as_file(built(build, tmp_path)) == as_file(built(build, held))


# --- refusals


@pytest.mark.parametrize("anchor", [START, START - WEEK])
def test_a_date_before_the_data_is_refused_with_the_dates(anchor: datetime) -> None:
    held = tables([event(0, "a", START), event(1, "a", ANCHOR)])
    with pytest.raises(TimeError) as caught:
        built(transforms.behaviour_weekly, held, anchor)
    for text in (f"as_of={anchor:%Y-%m-%d}", "2017-05-01", "2017-06-05"):
        assert text in str(caught.value)


def test_without_any_data_the_error_says_so() -> None:
    with pytest.raises(TimeError, match="no events and no searches"):
        built(transforms.behaviour_weekly, tables())


def test_a_future_that_is_not_known_yet_has_no_facts() -> None:
    with transforms.open_tables(tables([event(0, "a", START)])) as connection:
        with pytest.raises(TimeError, match=r"2017-05-29 \+ 8 days.*2017-06-05"):
            transforms.facts(connection, [ANCHOR - WEEK], horizon_days=8, known_before=ANCHOR)
        exactly = transforms.facts(connection, [ANCHOR - WEEK], horizon_days=7, known_before=ANCHOR)
        nothing = transforms.facts(connection, [], horizon_days=7, known_before=ANCHOR)
    assert (len(exactly), len(nothing)) == (0, 0)
    assert nothing.schema.equals(schema.FACTS)
