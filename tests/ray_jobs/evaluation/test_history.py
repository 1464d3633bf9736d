"""Hand-made features: right by hand, and blind to the future."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import transforms
from ray_jobs import metrics
from ray_jobs.evaluation.history import CATEGORY_DAYS, OWN_DAYS, Receipts
from ray_jobs.evaluation.supervised import Supervised
from ray_jobs.evaluation.text_match import TextMatch, line_weights
from ray_jobs.protocol import CATEGORIES, Protocol


def test_features_agree_with_the_protocol_and_ignore_the_future(
    shop: Callable[..., dict[str, pa.Table]], protocol_at: Callable[..., Protocol]
) -> None:
    protocol = protocol_at()
    users = [str(user) for user in protocol.everyone]
    receipts = Receipts(protocol.con)
    counts = receipts.category_counts(protocol.cutoff, users)
    assert counts.shape == (len(users), len(CATEGORY_DAYS) * len(receipts.categories))
    cheese = receipts.categories.index("CHEESE") + len(receipts.categories)  # 84 days
    known = protocol.past_counts("CHEESE", 84)
    assert counts[:, cheese].tolist() == [known.get(user, 0) for user in users]
    own = receipts.own("CHEESE", protocol.cutoff, users)
    assert own[:, OWN_DAYS.index(84)].tolist() == counts[:, cheese].tolist()
    rfm = receipts.rfm(protocol.cutoff, users)
    assert rfm.shape[1] == 42 and np.isfinite(rfm).all()

    tables = shop()
    events = tables["events"]
    before = pc.less(events["timestamp"], pa.scalar(protocol.cutoff, events["timestamp"].type))
    blind = Receipts(transforms.open_tables({**tables, "events": events.filter(before)}))
    assert np.array_equal(blind.rfm(protocol.cutoff, users), rfm)
    assert np.array_equal(blind.category_counts(protocol.cutoff, users), counts)


def test_the_reference_learns_from_earlier_outcomes(protocol_at: Callable[..., Protocol]) -> None:
    protocol = protocol_at(users=200)
    model = Supervised(protocol.con, protocol.cutoff, Receipts(protocol.con))
    for task in (*protocol.purchases(), protocol.coupon()):
        if task.name in ("CHEESE", "coupon"):
            assert metrics.auc(model.score(task), task.labels) > 0.6


def test_its_labels_are_all_known_at_the_cut_off(protocol_at: Callable[..., Protocol]) -> None:
    protocol = protocol_at()
    model = Supervised(protocol.con, protocol.cutoff, Receipts(protocol.con))
    for name, shifts in model._earlier.items():
        horizon = timedelta(days=56 if name == "coupon" else 28)
        assert all(when + horizon <= protocol.cutoff for when, _ in shifts)


def test_text_matching_ranks_by_what_sounds_alike(protocol_at: Callable[..., Protocol]) -> None:
    protocol = protocol_at(users=120)

    def encode(texts: list[str]) -> np.ndarray:
        return np.array([[float(c.lower() in t.lower()) for c in CATEGORIES] for t in texts])

    users = [str(user) for user in protocol.everyone]
    weights, lines = line_weights(protocol.con, protocol.cutoff, users)
    assert weights.shape == (len(users), len(lines)) and weights.max() < len(users)
    match = TextMatch(protocol.con, protocol.cutoff, users, encode)
    coffee = next(task for task in protocol.purchases() if task.name == "COFFEE")
    assert metrics.auc(match.score(coffee), coffee.labels) > 0.7
