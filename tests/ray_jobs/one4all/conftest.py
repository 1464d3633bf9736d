"""A market of made-up receipts: who goes to which department is known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo import schema, transforms
from ray_jobs.protocol import Protocol

T = datetime(2017, 9, 11, tzinfo=UTC)
DAY = timedelta(days=1)
TYPES = {"GROCERY": ("MILK", "BREAD", "RICE"), "DELI": ("HAM", "OLIVES"), "NUTRITION": ("BARS",)}


def event(user: str, day: float, kind: str, **more: Any) -> dict[str, Any]:
    """A line of a receipt, ``day`` days after T."""
    moment = T + day * DAY
    row = {
        "event_id": f"{user}/{day}/{kind}", "user_id": user, "timestamp": moment,
        "known_at": moment, "source": "bill", "item_id": kind, "quantity": 1.0, "amount": 2.0,
        "discount": 0.0, "basket_id": f"{user}/{day}", "channel": "card", "status": "successful",
        "place": "1",
    }  # fmt: skip
    return {**row, **more}


def tables(events: list[dict[str, Any]]) -> dict[str, pa.Table]:
    items = [
        {"item_id": kind, "text": kind.lower(), "brand": "National",
         "categories": [department, f"{kind}S", kind]}
        for department, kinds in TYPES.items() for kind in kinds
    ]  # fmt: skip
    rows = {"events": events, "items": items}
    return {n: pa.Table.from_pylist(r, schema=schema.CANONICAL[n]) for n, r in rows.items()}


@pytest.fixture(scope="session")
def buy() -> Callable[..., dict[str, Any]]:
    """``buy("a", -3, "MILK")``: a line of a receipt, days from T."""
    return event


@pytest.fixture(scope="session")
def protocol() -> Callable[..., Protocol]:
    """``protocol(events)``: the protocol at T on them; a stranger buys something much later."""

    def open_(events: list[dict[str, Any]], last: float = 90) -> Protocol:
        later = event("stranger", last, "RICE")
        return Protocol(transforms.open_tables(tables([*events, later])), T)

    return open_


@pytest.fixture(scope="session")
def receipts() -> list[dict[str, Any]]:
    """Households of two tastes, some of whom go to the deli for the first time after T.

    Sixty come back after T, twelve do not.
    """
    rng = np.random.default_rng(0)
    found = []
    for n in range(72):
        taste = ("MILK", "BREAD")[n % 2]
        for day in (-50, -20, -9, -2, 3, 10)[: 6 if n < 60 else 4]:
            kind = taste if rng.random() < 0.8 else "RICE"
            found.append(event(f"h{n:02}", day, kind, channel=("card", "coupon")[n % 3 == 0]))
        if n % 4 == 0 and n < 60:
            found.append(event(f"h{n:02}", 5, "HAM"))
    return found


def words(texts: Any) -> np.ndarray:
    """Made-up sentence vectors: equal texts, equal vectors."""
    rows = [np.random.default_rng(list(t.encode())).normal(size=8) for t in texts]
    return np.stack(rows).astype(np.float32)


@pytest.fixture(scope="session")
def lines() -> Callable[[Any], np.ndarray]:
    """Sentence vectors without a language model."""
    return words


@pytest.fixture(scope="session")
def market(receipts: list[dict[str, Any]]) -> dict[str, pa.Table]:
    """The canonical tables of ``receipts``, and of a stranger who buys much later."""
    return tables([*receipts, event("stranger", 90, "RICE")])
