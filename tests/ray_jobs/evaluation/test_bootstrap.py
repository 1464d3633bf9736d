"""The vectorised bootstrap against the obvious one, and what an interval must do."""

from __future__ import annotations

import numpy as np
import pytest

from ray_jobs import metrics
from ray_jobs.evaluation.bootstrap import Resamples, difference

USERS = [f"u{n}" for n in range(80)]


def by_hand(scores: np.ndarray, labels: np.ndarray, times: np.ndarray) -> float:
    """AUC of the resample written out household by household."""
    rows = np.repeat(np.arange(len(scores)), times.astype(int))
    return metrics.auc(scores[rows], labels[rows])


@pytest.mark.parametrize("digits", [8, 0])  # with many ties, too
def test_it_equals_the_auc_of_the_resample_written_out(digits: int) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=80).round(digits), rng.random(80) < 0.3
    resamples = Resamples(USERS, num=20, seed=3)
    found = resamples.auc(scores, labels, USERS)
    wanted = [by_hand(scores, labels, times) for times in resamples._times_RN]
    assert found == pytest.approx(wanted)


def test_it_equals_the_precision_of_the_resample_written_out() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=80), rng.random(80) < 0.3
    resamples = Resamples(USERS, num=20, seed=3)
    wanted = []
    for times in resamples._times_RN:
        rows = np.repeat(np.argsort(-scores), times.astype(int)[np.argsort(-scores)])
        wanted.append(labels[rows[: labels[rows].sum()]].mean())
    assert resamples.precision(scores, labels, USERS) == pytest.approx(wanted)
    assert np.isnan(resamples.precision(scores, labels & False, USERS)).all()


def test_a_household_is_drawn_alike_for_every_task_and_order() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=80), rng.random(80) < 0.5
    resamples = Resamples(USERS, num=5)
    shuffled = rng.permutation(80)
    again = resamples.auc(scores[shuffled], labels[shuffled], [USERS[n] for n in shuffled])
    assert again == pytest.approx(resamples.auc(scores, labels, USERS))


def test_a_class_missing_from_a_resample_has_no_value() -> None:
    labels = np.arange(80) < 1
    found = Resamples(USERS, num=200).auc(np.arange(80.0), labels, USERS)
    assert np.isnan(found).any() and not np.isnan(found).all()


def test_the_interval_tells_a_better_method_from_an_equal_one() -> None:
    rng = np.random.default_rng(2)
    users = [f"u{n}" for n in range(600)]
    truth, labels = rng.normal(size=600), None
    labels = truth + rng.normal(size=600) > 0.8
    resamples = Resamples(users, num=200)
    good, same, poor = (
        resamples.auc(truth + spread * rng.normal(size=600), labels, users)
        for spread in (0.3, 0.3, 3.0)
    )
    assert difference(good, poor)["low"] > 0.1
    tied = difference(good, same)
    assert tied["low"] < 0 < tied["high"] and tied["low"] < tied["mean"] < tied["high"]
