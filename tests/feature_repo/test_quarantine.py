"""Screening: nothing is lost, nothing bad passes, and the reason given is the right one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from feature_repo import vectors
from feature_repo.errors import InputError
from feature_repo.quarantine import Origin, as_text, screen
from feature_repo.schema import CANONICAL, EVENTS, MAX_NUMBER, MAX_TEXT, MAX_USER_ID, QUARANTINE
from sdk.fields import UserId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS = pa.table(
    {"item_id": ["i1"], "text": ["milk"], "categories": [["food"]], "brand": [None]},
    schema=CANONICAL["items"],
)
GOOD: dict[str, Any] = {
    "event_id": "e1",
    "user_id": "u1",
    "timestamp": "2025-12-01 10:00:00",
    "source": "bill",
    "item_id": "i1",
    "quantity": 1.0,
    "amount": 2.5,
    "discount": 0.5,
}


def events(*changes: dict[str, Any]) -> pa.Table:
    """One row per change of the good event; each has its own id unless the change says so."""
    rows = [{**GOOD, "event_id": f"e{n}", **change} for n, change in enumerate(changes)]
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize(
    ("change", "column", "reason"),
    [
        ({"user_id": None}, "user_id", "null"),
        ({"user_id": "  "}, "user_id", "empty"),
        ({"event_id": "e0"}, "event_id", "duplicate key"),
        ({"timestamp": "yesterday"}, "timestamp", "unparsable timestamp"),
        ({"timestamp": None}, "timestamp", "null"),
        ({"timestamp": "2026-01-01 00:00:01"}, "timestamp", "in the future"),
        ({"timestamp": "-infinity"}, "timestamp", "before 1900-01-01"),
        ({"timestamp": "1970-01-01"}, "timestamp", "timestamp 0"),
        ({"amount": -0.01}, "amount", "negative"),
        ({"amount": float("nan")}, "amount", "not a finite number"),
        ({"quantity": -1.0}, "quantity", "negative"),
        ({"quantity": 1e14}, "quantity", "larger than 100,000,000,000"),
        ({"amount": 1.01e11}, "amount", "larger than 100,000,000,000"),
        ({"discount": 1e300}, "discount", "larger than 100,000,000,000"),
        ({"source": "fax"}, "source", "unknown event source"),
        ({"item_id": "i2"}, "item_id", "unknown item"),
        ({"user_id": "u" * 257}, "user_id", "longer than 256 characters"),
        ({"user_id": "é" * 256 + "u"}, "user_id", "longer than 256 characters"),
        ({"user_id": "漢" * 171}, "user_id", "longer than 512 bytes"),
        ({"item_id": "i" * (MAX_TEXT + 1)}, "item_id", f"longer than {MAX_TEXT} characters"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_reason(
    change: dict[str, Any], column: str, reason: str
) -> None:
    good, bad = screen("events", events({}, change, {}), now=NOW, items=ITEMS)
    assert good.column("event_id").to_pylist() == ["e0", "e2"]
    assert good.schema == EVENTS and bad.schema == QUARANTINE
    row = bad.to_pylist()[0]
    assert (row["table"], row["row"], row["column"], row["reason"]) == ("events", 1, column, reason)
    record = json.loads(row["record"])
    assert record["source"] == change.get("source", "bill")


def test_edges_pass() -> None:
    edges = [
        {"timestamp": "2026-01-01"},  # now itself is not the future
        {"amount": 0.0},
        {"amount": MAX_NUMBER, "quantity": MAX_NUMBER, "discount": MAX_NUMBER},
        {"amount": None, "quantity": None},
        {"user_id": "é" * MAX_USER_ID},
    ]
    good, bad = screen("events", events(*edges), now=NOW, items=ITEMS)
    assert (good.num_rows, bad.num_rows) == (5, 0)


def test_a_time_counted_from_nothing_is_missing_in_events_but_not_in_profiles() -> None:
    table = events(
        {"known_at": "1970-01-01T01:00:00+01:00"}, {"known_at": "1970-01-01T00:00:00.000001"}
    )
    good, bad = screen("events", table, now=NOW)
    assert good.column("event_id").to_pylist() == ["e1"]
    assert bad.select(["column", "reason"]).to_pylist() == [
        {"column": "known_at", "reason": "timestamp 0"}
    ]
    since = pa.table({"user_id": ["u"], "timestamp": ["1970-01-01"]})
    for name in ("categorical", "continuous"):
        field = CANONICAL["profiles"].field(name)
        since = since.append_column(name, pa.array([[]], field.type))
    assert screen("profiles", since, now=NOW)[0].num_rows == 1  # valid from the beginning on


def test_an_id_that_is_let_in_is_taken_by_the_wire_and_by_milvus() -> None:
    longest = "é" * MAX_USER_ID
    assert TypeAdapter(UserId).validate_python(longest) == longest
    assert len(longest.encode()) == vectors._MAX_TEXT


def test_times_without_a_zone_are_utc_and_known_at_defaults_to_timestamp() -> None:
    table = events({"timestamp": "2025-06-01 10:00:00"}, {"timestamp": "2025-06-01T10:00:00+02:00"})
    good, _ = screen("events", table, now=NOW)
    ten = datetime(2025, 6, 1, 10, tzinfo=UTC)
    assert good.column("timestamp").to_pylist() == [ten, ten - timedelta(hours=2)]
    assert good.column("known_at").equals(good.column("timestamp"))


def test_a_late_row_known_in_the_future_is_not_known_yet() -> None:
    table = events({"known_at": "2026-02-01"}, {"known_at": "2025-12-05"})
    good, bad = screen("events", table, now=NOW)
    assert good.column("event_id").to_pylist() == ["e1"]
    assert bad.column("column").to_pylist() == ["known_at"]


def test_a_broken_row_does_not_push_out_a_sound_one_with_its_key() -> None:
    table = events({"event_id": "e", "amount": -1.0}, {"event_id": "e"}, {"event_id": "e"})
    good, bad = screen("events", table, now=NOW)
    assert good.num_rows == 1
    assert bad.column("reason").to_pylist() == ["negative", "duplicate key"]


def test_numbers_and_ids_of_other_types_are_converted() -> None:
    table = pa.table({**{k: [v] for k, v in GOOD.items()}, "user_id": [12], "amount": ["3.5"]})
    good, _ = screen("events", table, now=NOW)
    assert good.column("user_id").to_pylist() == ["12"]
    assert good.column("amount").to_pylist() == [3.5]
    whole = table.set_column(1, "user_id", pa.array([123456789012.0]))
    assert screen("events", whole, now=NOW)[0]["user_id"].to_pylist() == ["123456789012"]
    _, bad = screen("events", table.set_column(6, "amount", [["3,5"]]), now=NOW)
    assert bad.column("reason").to_pylist() == ["not a number"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(41.0, "41"), (1e15, "1000000000000000"), (-7.0, "-7"), (1.5, "1.5"), (None, None),
     (float("nan"), None), (float("inf"), "inf"), (1e22, "1e+22")],
)  # fmt: skip
def test_floats_that_are_whole_are_written_as_whole(number: float | None, text: str | None) -> None:
    """Unless they are beyond what a float tells apart: then no digits are made up."""
    assert as_text("id", pa.array([0.5, number], pa.float64())).to_pylist() == ["0.5", text]
    assert as_text("id", pa.array([0.1, 7.0], pa.float32())).to_pylist() == ["0.1", "7"]


def test_keys_of_two_columns_are_compared_together() -> None:
    rows = [("a", "u1"), ("a", "u2"), ("b", "u1"), ("a", "u2")]
    table = pa.table(
        {
            "segment": [segment for segment, _ in rows],
            "user_id": [user for _, user in rows],
            "timestamp": ["2025-01-01"] * 4,
        }
    )
    good, bad = screen("segments", table, now=NOW)
    assert good.num_rows == 3
    assert bad.column("row").to_pylist() == [3]
    assert bad.column("column").to_pylist() == ["segment+user_id"]


def test_entries_of_lists_and_maps_are_checked() -> None:
    items = pa.table(
        {
            "item_id": ["a", "b", "c"],
            "text": ["x", "y", "z"],
            "categories": [["ok"], ["ok", None], []],
        }
    )
    good, bad = screen("items", items, now=NOW)
    assert good.column("item_id").to_pylist() == ["a", "c"]
    assert bad.column("reason").to_pylist() == ["null or empty entry"]
    profiles = pa.table(
        {
            "user_id": ["u1", "u2"],
            "timestamp": ["2025-01-01"] * 2,
            "categorical": pa.array([[("plan", "x")], []], pa.map_(pa.string(), pa.string())),
            "continuous": pa.array(
                [[("age", float("inf"))], [("age", 3.0)]], pa.map_(pa.string(), pa.float64())
            ),
        }
    )
    good, bad = screen("profiles", profiles, now=NOW)
    assert good.column("user_id").to_pylist() == ["u2"]
    assert json.loads(bad.column("record")[0].as_py())["continuous"] == [["age", "inf"]]


def test_the_origin_gives_position_record_and_faults() -> None:
    raw = pa.table({"original": [1, 2, 3]})
    origin = Origin(
        rows=pa.array([70, 80, 90]),
        records=(raw.slice(0, 1), raw.slice(1)),
        faults=(("units", "not a number", pa.array([False, False, True]).to_numpy(False)),),
    )
    good, bad = screen("events", events({"amount": -1.0}, {}, {}), now=NOW, origin=origin)
    assert good.column("event_id").to_pylist() == ["e1"]
    assert bad.column("row").to_pylist() == [70, 90]
    assert bad.column("record").to_pylist() == ['{"original": 1}', '{"original": 3}']
    assert bad.column("reason").to_pylist() == ["negative", "not a number"]


def test_mistakes_of_the_caller_are_errors() -> None:
    with pytest.raises(InputError, match="'user_id' is absent.*'event_id'"):
        screen("events", events({}).drop_columns("user_id"), now=NOW)
    with pytest.raises(InputError, match="expected one of.*'orders'"):
        screen("orders", events({}), now=NOW)
    with pytest.raises(InputError, match="time zone"):
        screen("events", events({}), now=datetime(2026, 1, 1))


ROWS = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["a", "b", "c", "", None]),
        "user_id": st.one_of(st.none(), st.text(max_size=3)),
        "timestamp": st.sampled_from(["2025-01-01", "2027-01-01", "x", None, "infinity"]),
        "source": st.sampled_from(["bill", "click", "fax", None]),
        "item_id": st.sampled_from(["i1", "i2", None]),
        "amount": st.one_of(st.none(), st.floats(width=16)),
    }
)
RAW = pa.schema([(name, pa.string()) for name in list(GOOD)[:5]] + [("amount", pa.float64())])


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ROWS, max_size=12))
def test_nothing_is_lost_and_what_passes_is_good(rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=RAW)
    good, bad = screen("events", table, now=NOW, items=ITEMS)
    assert good.num_rows + bad.num_rows == len(rows)
    quarantined = bad.column("row").to_pylist()
    passed = [row for n, row in enumerate(rows) if n not in quarantined]
    assert [row["event_id"] for row in passed] == good.column("event_id").to_pylist()
    assert len({row["event_id"] for row in passed}) == len(passed)
    assert all(row["item_id"] == "i1" and row["source"] in ("bill", "click") for row in passed)
    assert all(row["timestamp"] == "2025-01-01" for row in passed)
    assert all(row["amount"] is None or 0 <= row["amount"] < float("inf") for row in passed)
    for record in bad.column("record").to_pylist():
        assert set(json.loads(record)) == set(RAW.names)
    again, none = screen("events", good, now=NOW, items=ITEMS)
    assert again.equals(good) and none.num_rows == 0
