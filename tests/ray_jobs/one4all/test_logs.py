"""Raw logs: what is in them, in which order, and what must never be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.one4all import logs

T = datetime(2017, 9, 11, tzinfo=UTC)


def told(table: logs.LogTable, row: int) -> list[str]:
    """The texts of a user's log, in order."""
    mask = table.logs.mask_NL[row]
    return [table.texts[n] for n in table.logs.texts_NL[row][mask].tolist()]


def test_a_product_counts_once_a_day_and_the_latest_are_kept(buy: Any, protocol: Any) -> None:
    events = [buy("a", day, "MILK") for day in (-5, -4.9, -4.8, -2)] + [buy("a", -3, "HAM")]
    con = protocol([*events, buy("b", -1, "RICE")]).con
    table = logs.purchases(con, T, ["b", "a", "nobody"], length=4)
    assert told(table, 1) == ["milk", "ham", "milk"] and told(table, 0) == ["rice"]
    assert table.lengths.tolist() == [1, 3, 0]
    short = logs.purchases(con, T, ["a"], length=2)
    assert told(short, 0) == ["ham", "milk"] and short.lengths.tolist() == [3]


def test_nothing_from_the_date_on_and_nothing_known_late_is_read(buy: Any, protocol: Any) -> None:
    before = [buy("a", -2, "MILK"), buy("b", -1, "RICE")]
    late = buy("a", -1, "HAM", known_at=T)
    after = [buy("a", 0, "OLIVES"), buy("b", 3, "BARS")]
    table = logs.purchases(protocol([*before, late, *after]).con, T, ["a", "b"])
    assert [told(table, row) for row in (0, 1)] == [["milk"], ["rice"]]
    assert table.texts == ["", "milk", "rice"]


def test_a_history_may_be_cut_to_its_last_days(buy: Any, protocol: Any) -> None:
    con = protocol([buy("a", -40, "MILK"), buy("a", -30, "HAM"), buy("a", -1, "RICE")]).con
    assert told(logs.purchases(con, T, ["a"], days=30), 0) == ["ham", "rice"]


def test_dates_are_told_by_their_parts() -> None:
    moments = ["1998-12-31T23:10", "1999-01-01T00:00", "2000-02-29T05:59"]
    table = pa.table({
        "user_id": ["a"] * 3, "text": ["x"] * 3,
        "moment": np.array(moments, "datetime64[us]").astype(np.int64),
    })  # fmt: skip
    found = logs.tensors(table, ["a"], length=3)
    #          year, month, day, weekday (Thursday 4, Friday 5, Tuesday 2), hour; all from 1
    expected = [[1, 12, 31, 4, 24], [2, 1, 1, 5, 1], [3, 2, 29, 2, 6]]
    assert found.logs.dates_NLD[0].tolist() == expected
    assert (found.logs.dates_NLD[0].numpy() < np.array(found.dates)).all()


def test_an_embedding_takes_every_category_and_users_without_events(
    buy: Any, protocol: Any, lines: Callable[[Any], np.ndarray]
) -> None:
    con = protocol([buy("a", -1, "MILK"), buy("a", -2, "BARS")]).con
    table = logs.purchases(con, T, ["a", "b"])
    assert table.categories == (3, 3, 3, 2)
    made = table.embedding(lines)(table.logs)
    assert made.shape[:2] == (2, logs.LENGTH) and bool(made.isfinite().all())


def test_no_events_at_all_make_empty_logs() -> None:
    empty = pa.table({
        "user_id": pa.array([], pa.string()), "moment": pa.array([], pa.int64()),
        "text": pa.array([], pa.string()), "c": pa.array([], pa.string()),
    })  # fmt: skip
    table = logs.tensors(empty, ["a"])
    assert not table.logs.mask_NL.any() and table.texts == [""] and table.categories == (1,)


def test_unknown_values_are_numbered_zero() -> None:
    table = pa.table({
        "user_id": ["a", "a"], "moment": [0, 1], "text": ["x", None], "c": ["red", None],
    })  # fmt: skip
    found = logs.tensors(table, ["a"], length=2).logs
    assert found.categories_NLC[0, :, 0].tolist() == [1, 0]
    assert found.texts_NL[0].tolist() == [1, 0]


@pytest.mark.parametrize("length", [1, 3])
def test_bytes_per_user_count_events(length: int) -> None:
    table = pa.table({"user_id": ["a"] * 3, "moment": [0, 1, 2], "text": ["x"] * 3})
    assert logs.tensors(table, ["a"]).bytes_per_user(length) == length * (5 + 4)
