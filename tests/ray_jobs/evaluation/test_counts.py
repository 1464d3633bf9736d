"""Counts of the past by hand, and that none of them sees the future."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_repo import transforms
from ray_jobs import metrics
from ray_jobs.evaluation.counts import Counts
from ray_jobs.protocol import Protocol


def test_counts_find_habits_and_behaviours(protocol_at: Callable[..., Protocol]) -> None:
    protocol = protocol_at(users=150)
    counts = Counts(protocol)
    tasks = {task.name: task for task in protocol.tasks() if task.group != "B"}
    for name in ("CHEESE", "coupon", "lapse", "top spend", "spend up"):
        for scorer in (counts.past, counts.recent, counts.active):
            assert metrics.auc(scorer(tasks[name]), tasks[name].labels) > 0.55, (name, scorer)


def test_nothing_at_or_after_the_cut_off_counts(
    shop: Callable[..., dict[str, pa.Table]], protocol_at: Callable[..., Protocol]
) -> None:
    cutoff = protocol_at().cutoff
    tables = shop()
    past = {
        name: table.filter(pc.less(table["timestamp"], pa.scalar(cutoff, table["timestamp"].type)))
        for name, table in tables.items()
        if "timestamp" in table.column_names
    }
    whole = Protocol(transforms.open_tables(tables), cutoff - timedelta(days=1))
    # The last day stays, so that the cut-off does not lie after the data.
    cut = Protocol(transforms.open_tables({**tables, **past}), cutoff - timedelta(days=1))
    for task in (whole.purchases()[0], whole.coupon(), *whole.behaviours()):
        for name in ("past", "recent", "active"):
            scores = [getattr(Counts(p), name)(task) for p in (whole, cut)]
            assert np.array_equal(*scores), (task.name, name)


def test_equal_counts_are_ordered_by_activity_or_against_it(
    protocol_at: Callable[..., Protocol],
) -> None:
    protocol = protocol_at()
    lapse = next(task for task in protocol.behaviours() if task.name == "lapse")
    scores = Counts(protocol).past(lapse)
    assert len(set(scores)) == len(scores)
    assert scores.max() <= 0


def test_a_window_counts_what_lies_in_it(protocol_at: Callable[..., Protocol]) -> None:
    protocol = protocol_at()
    coffee = next(task for task in protocol.purchases() if task.name == "COFFEE")
    within = Counts(protocol).within(coffee, 84)
    assert within == pytest.approx(within.round(), abs=1e-5)
    assert (Counts(protocol).within(coffee, 28) <= within).all()
    assert Counts(protocol).within(coffee, 182).tolist() == Counts(protocol).past(coffee).tolist()
