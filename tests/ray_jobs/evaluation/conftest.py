"""A small shop of made-up receipts in the form of Complete Journey."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo import schema, transforms
from ray_jobs.protocol import CATEGORIES, Protocol

T = datetime(2017, 9, 11, tzinfo=UTC)
DAY = timedelta(days=1)
HABITS = ("CHEESE", "COFFEE", "DOG FOODS")


@pytest.fixture(scope="session")
def shop() -> Callable[..., dict[str, pa.Table]]:
    """``shop(users=…)``: tables in which each household likes one of three categories."""
    return make


@pytest.fixture(scope="session")
def protocol_at(shop: Callable[..., dict[str, pa.Table]]) -> Callable[..., Protocol]:
    """``protocol_at(T, users=…)``: the protocol on that shop."""

    def open_(cutoff: datetime = T, **more: Any) -> Protocol:
        return Protocol(transforms.open_tables(shop(**more)), cutoff)

    return open_


def make(users: int = 60, seed: int = 0) -> dict[str, pa.Table]:
    rng = np.random.default_rng(seed)
    events, exposures = [], []
    for n in range(users):
        habit, often = HABITS[n % 3], rng.uniform(0.05, 0.3)
        for day in range(-300, 60):
            if rng.random() > often:
                continue
            at, what = T + day * DAY, habit if rng.random() < 0.6 else str(rng.choice(CATEGORIES))
            events.append({
                "event_id": f"{n}/{day}", "user_id": f"h{n}", "timestamp": at, "known_at": at,
                "source": "bill", "item_id": what, "quantity": 1.0, "discount": 0.1,
                "amount": float(rng.uniform(1, 20)), "basket_id": f"{n}/{day}", "channel": "card",
                "status": "successful", "place": "1",
            })  # fmt: skip
            if rng.random() < 0.02 * (n % 5):
                exposures.append({
                    "exposure_id": f"{n}/{day}", "user_id": f"h{n}", "timestamp": at,
                    "known_at": at, "campaign_id": "1", "kind": "redeemed", "text": None,
                })  # fmt: skip
    items = [
        {"item_id": c, "text": c.lower(), "categories": ["FOOD", c, f"{c} KIND"], "brand": None}
        for c in CATEGORIES
    ]
    rows = {"events": events, "exposures": exposures, "items": items}
    return {
        name: pa.Table.from_pylist(listed, schema=schema.CANONICAL[name])
        for name, listed in rows.items()
    }
