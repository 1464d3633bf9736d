"""Outcomes of a world small enough to work them out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from feature_repo import schema, transforms
from feature_repo.outcomes import HORIZONS, outcomes

Row = dict[str, Any]

DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
CUTOFF = datetime(2017, 6, 5, tzinfo=UTC)
NOW = CUTOFF + 14 * DAY  # of the three horizons just the shortest has passed


def bill(
    user: str, days: float, amount: float, *, known: float | None = None, source: str = "bill"
) -> Row:
    """Something bought ``days`` after the cut-off (before it, if negative)."""
    at = CUTOFF + days * DAY
    bill.number += 1  # type: ignore[attr-defined]
    return {"event_id": f"e{bill.number}", "user_id": user, "timestamp": at,  # type: ignore[attr-defined]
            "known_at": at if known is None else CUTOFF + known * DAY, "source": source,
            "item_id": "x", "amount": amount}  # fmt: skip


bill.number = 0  # type: ignore[attr-defined]


def redeemed(user: str, days: float, *, known: float | None = None, kind: str = "redeemed") -> Row:
    at = CUTOFF + days * DAY
    return {"exposure_id": f"x{user}{days}", "user_id": user, "timestamp": at, "campaign_id": "c",
            "known_at": at if known is None else CUTOFF + known * DAY, "kind": kind,
            "text": None}  # fmt: skip


EVENTS = [
    bill("rises", -10, 10), bill("rises", 1, 14),  # 14 > 1.3 · 10
    bill("steady", -10, 10), bill("steady", 13, 13),  # 13 is not more than 1.3 · 10
    bill("lost", -59, 5),  # active 59 days ago, nothing since
    bill("sleeper", -61, 5), bill("sleeper", 2, 100),  # inactive, then the biggest spender
    bill("clicker", -3, 0, source="click"), bill("clicker", 3, 0, source="click"),
    bill("new", 1, 1_000),  # unknown at the cut-off
]  # fmt: skip


def told(
    events: list[Row],
    exposures: Sequence[Row] = (),
    *,
    cutoffs: Sequence[datetime] = (CUTOFF,),
    now: datetime = NOW,
) -> dict[tuple[str, int], dict[str, bool]]:
    """(outcome, days) → user → happened."""
    rows = {"events": events, "exposures": list(exposures)}
    held = {
        name: pa.Table.from_pylist(listed, schema=schema.CANONICAL[name])
        for name, listed in rows.items()
    }
    with transforms.open_tables(held) as connection:
        table = outcomes(connection, cutoffs, known_before=now)
    assert table.schema.equals(schema.OUTCOMES)
    found: dict[tuple[str, int], dict[str, bool]] = {}
    for row in table.to_pylist():
        cell = found.setdefault((row["outcome"], row["horizon_days"]), {})
        assert row["cutoff"] in cutoffs and row["outcome"] in schema.OUTCOME_NAMES
        assert row["user_id"] not in cell or len(cutoffs) > 1
        cell[row["user_id"]] = row["happened"]
    return found


def test_outcomes_by_hand() -> None:
    found = told(EVENTS, [redeemed("lost", 4), redeemed("steady", 4, kind="sent")])
    assert set(found) == {(name, 14) for name in schema.OUTCOME_NAMES}
    assert found["nothing", 14] == {"rises": False, "steady": False, "lost": True}
    # Spends are 14, 13, 0, 100, 0: the upper quartile is 14, and only more than it is a lot.
    assert found["a lot", 14] == {
        "rises": False, "steady": False, "lost": False, "sleeper": True, "clicker": False,
    }  # fmt: skip
    assert found["more", 14] == {"rises": True, "steady": False, "lost": False}
    assert found["coupon", 14] == {
        "rises": False, "steady": False, "lost": True, "sleeper": False, "clicker": False,
    }  # fmt: skip


def test_only_users_active_before_are_asked_whether_they_stay_and_spend_more() -> None:
    events = [bill("in", -60, 1), bill("out", -60.001, 1), bill("clicks", -1, 0, source="click")]
    found = told(events)
    assert set(found["nothing", 14]) == set(found["more", 14]) == {"in"}
    assert set(found["a lot", 14]) == {"in", "out", "clicks"}


def test_where_nobody_buys_a_visit_stands_for_a_purchase() -> None:
    seen = [("stays", -5, "click"), ("stays", 5, "mini_program"), ("goes", -5, "click"),
            ("gone", -70, "click")]  # fmt: skip
    events = [bill(user, days, 0, source=source) for user, days, source in seen]
    assert told(events)["nothing", 14] == {"stays": False, "goes": True}
    late = bill("buys", 5, 1, known=14)  # a first purchase that nobody knows of yet
    assert told([*events, late]) == told(events)
    assert set(told([*events, bill("buys", -5, 1)])["nothing", 14]) == {"buys"}


def test_where_nothing_has_a_price_events_are_counted() -> None:
    events = [bill("busy", -5, 0), *(bill("busy", day, 0) for day in (1, 2, 3)),
              bill("calm", -5, 0), bill("calm", 5, 0), bill("gone", -5, 0)]  # fmt: skip
    found = told(events)
    assert found["a lot", 14] == {"busy": True, "calm": False, "gone": False}
    assert found["more", 14] == {"busy": True, "calm": False, "gone": False}
    priced = told([*events, bill("pays", 1, 5)])
    assert not any(priced["more", 14].values())


def test_futures_that_are_not_over_are_absent() -> None:
    for now, horizons in ((14, {14}), (27.9, {14}), (28, {14, 28}), (56, set(HORIZONS))):
        found = told(EVENTS, now=CUTOFF + now * DAY)
        assert {days for _, days in found} == horizons
    assert told(EVENTS, now=NOW - MICROSECOND) == {}


def test_each_cutoff_has_the_horizons_that_are_over() -> None:
    earlier = CUTOFF - 14 * DAY
    two = told(EVENTS, cutoffs=[CUTOFF, earlier])
    assert {days for _, days in two} == {14, 28}
    assert two["nothing", 28] == told(EVENTS, cutoffs=[earlier])["nothing", 28]


def test_the_horizon_begins_at_the_cutoff_and_its_end_is_outside() -> None:
    tick = MICROSECOND / DAY
    for days, stayed in ((0, False), (14 - tick, False), (14, True), (-tick, True)):
        found = told([bill("a", -5, 1), bill("a", days, 1)], now=CUTOFF + 20 * DAY)
        assert found["nothing", 14] == {"a": stayed}, days


@pytest.mark.parametrize(("known", "stayed"), [(13.9, False), (14, True), (30, True)])
def test_what_became_known_too_late_is_not_counted(known: float, stayed: bool) -> None:
    events = [bill("a", -5, 1), bill("a", 1, 9, known=known)]
    assert told(events)["nothing", 14] == {"a": stayed}
    assert told(events)["more", 14] == {"a": not stayed}


@pytest.mark.parametrize(("known", "counts"), [(13.9, True), (14, False), (30, False)])
def test_a_redemption_known_too_late_is_not_counted(known: float, counts: bool) -> None:
    others = [redeemed("b", -30)]  # so that redemptions are known of at all
    found = told([bill("a", -5, 1)], [*others, redeemed("a", 1, known=known)])
    assert found["coupon", 14] == {"a": counts}


def test_a_redemption_outside_the_horizon_does_not_count() -> None:
    found = told([bill("a", -5, 1)], [redeemed("a", -1), redeemed("a", 14)], now=NOW + DAY)
    assert found["coupon", 14] == {"a": False}


def test_coupons_are_unknown_where_no_redemption_was_ever_known() -> None:
    for exposures in ([], [redeemed("a", 1, kind="sent")], [redeemed("a", 1, known=14)]):
        assert ("coupon", 14) not in told([bill("a", -5, 1)], exposures)


def test_users_who_become_known_later_do_not_move_the_threshold() -> None:
    known = [event for event in EVENTS if event["user_id"] != "new"]
    crowd = [bill(f"new{n}", 1, 10_000) for n in range(20)]
    late = [bill(f"late{n}", -1, 10_000, known=0) for n in range(20)]
    assert told(known) == told([*EVENTS, *crowd, *late])


def test_no_cutoffs_no_outcomes() -> None:
    assert told(EVENTS, cutoffs=[]) == {}
