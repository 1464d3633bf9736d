"""Purchase tokens against a slow reference in plain Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from encoders.purchases import (
    CATEGORIES,
    DATES,
    FIELDS,
    PurchaseCollate,
    PurchaseHistory,
    example_batch,
    fit_vocabularies,
)

PRODUCTS = [
    ("gouda 8 oz", ["FOOD", "DAIRY", "CHEESE", "HARD", "TOO DEEP"]),
    ("loaf", ["FOOD", "BAKERY"]),
    ("", ["TOYS"]),
    ("gift card", []),
]
START = datetime(2016, 12, 30, 22, tzinfo=UTC)


def vectors(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), 1.0] for text in texts], np.float32)


def weekly(logs: dict[str, list[tuple[datetime, int]]]) -> pa.Table:
    """One row per user and two purchases, as the weeks of a view split a log."""
    rows = []
    for user, log in logs.items():
        for first in range(0, len(log), 2):
            part = log[first : first + 2]
            named = [PRODUCTS[product] for _, product in part]
            rows.append({
                "user_id": user,
                "products": [json.dumps({"text": t, "categories": c}) for t, c in named],
                "bought_at": [round(at.timestamp() * 1e6) for at, _ in part],
            })  # fmt: skip
    rng = np.random.default_rng(0)
    rows = [rows[place] for place in rng.permutation(len(rows))]
    types = [("user_id", pa.string()), ("products", pa.list_(pa.string())),
             ("bought_at", pa.list_(pa.int64()))]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


@pytest.fixture
def logs() -> dict[str, list[tuple[datetime, int]]]:
    rng = np.random.default_rng(1)
    found = {}
    for user in ("a", "b", "c"):
        size = {"a": 1, "b": 7, "c": 30}[user]
        hours = np.sort(rng.integers(0, 24 * 400, size))
        found[user] = [(START + timedelta(hours=int(h)), int(rng.integers(4))) for h in hours]
    return found


def parts(at: datetime) -> list[int]:
    return [at.year, at.month, at.day, at.weekday(), at.hour]


def test_tokens_are_those_of_the_slow_reference(logs: Any) -> None:
    history = PurchaseHistory(weekly(logs), vectors)
    known = fit_vocabularies(history)
    collate = PurchaseCollate(history, known)
    users = ["c", "nobody", "a", "b"]
    stretches = [history.latest(user, length=12, stretches=1) for user in users]
    owners = [place for place, each in enumerate(stretches) for _ in each]
    batch = collate([each for found in stretches for each in found], owners, len(users))
    assert len(batch) == 4 and owners == [0, 2, 3]

    for row, owner in enumerate(owners):
        expected = sorted(logs[users[owner]], key=lambda p: (p[0], json.dumps(PRODUCTS[p[1]][0])))[
            -12:
        ]
        assert int(batch.filled_RT[row].sum()) == len(expected)
        assert batch.filled_RT[row, : len(expected)].all()
        for place, (at, product) in enumerate(expected):
            text, categories = PRODUCTS[product]
            values = [*(categories[k] if k < len(categories) else "" for k in range(4)), *parts(at)]
            codes = [
                known[name].index(value) + 1 for name, value in zip(FIELDS, values, strict=True)
            ]
            assert batch.codes_RTF[row, place].tolist() == codes
            vector = batch.texts_VE[batch.product_RT[row, place]].tolist()
            assert vector == ([len(text), 1.0] if text else [0.0, 0.0])


def test_a_late_week_is_read_in_the_order_of_purchase(logs: Any) -> None:
    """Rows come in any order, and a late row's purchase is older than the week it is in."""
    history = PurchaseHistory(weekly(logs), vectors)
    for user in range(3):
        begin = history.start_U[user]
        times = history.times_n[begin : begin + history.length_U[user]]
        assert (np.diff(times) >= 0).all()
    assert history.length_U.tolist() == [1, 7, 30]


def test_what_training_never_saw_is_unknown(logs: Any) -> None:
    seen = PurchaseHistory(weekly({"c": [(START, 1)]}), vectors)
    known = fit_vocabularies(seen)
    assert known["category_3"] == known["category_4"] == [""], "a level that no product has"
    history = PurchaseHistory(weekly({"c": [(START, 0), (START.replace(year=2018), 1)]}), vectors)
    batch = PurchaseCollate(history, known)([np.arange(2)], [0], 1)
    first, second = batch.codes_RTF[0].tolist()
    assert dict(zip(CATEGORIES, first[:4], strict=True)) == {
        "category_1": 1, "category_2": 0, "category_3": 0, "category_4": 0,
    }  # fmt: skip
    assert dict(zip(DATES, second[4:], strict=True))["year"] == 0
    assert second[:4] == [1, 1, 1, 1]


def test_long_logs_are_read_in_stretches_latest_first() -> None:
    log = [(START + timedelta(hours=n), n % 4) for n in range(4_000)]
    history = PurchaseHistory(weekly({"a": log}), vectors)
    found = history.latest("a", length=350, stretches=3)
    assert [len(each) for each in found] == [350, 350, 350]
    assert found[0][-1] == 3_999 and found[1][-1] == 3_649
    every = history.latest("a", length=350, stretches=100)
    assert sorted(np.concatenate(every).tolist()) == list(range(4_000))
    assert len(every[-1]) == 4_000 % 350


def test_purchases_of_one_moment_are_one_visit() -> None:
    batch = example_batch()
    first, second, third = batch.visit_RT[0].tolist()
    assert first == second != third
    assert len({*batch.visit_RT[1, :2].tolist(), first, third}) == 4


def test_no_purchases_at_all() -> None:
    history = PurchaseHistory(weekly({}), vectors)
    assert history.user_ids == [] and history.latest("a", length=3, stretches=1) == []
    batch = PurchaseCollate(history, {name: [] for name in FIELDS})([], [], 2)
    assert len(batch) == 2 and batch.codes_RTF.shape == (0, 1, 9)
