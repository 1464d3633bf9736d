"""Ranking metrics against references that count pairs and enumerate orders."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs import metrics

pairs = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=6)


def arrays(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s for s, _ in rows], float), np.array([y for _, y in rows], bool)


def slow_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    won = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    return float(np.mean(won))


def slow_ks(scores: np.ndarray, labels: np.ndarray) -> float:
    gaps = [(scores[labels] >= t).mean() - (scores[~labels] >= t).mean() for t in scores]
    return float(max(0.0, *gaps))


def slow_precision(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Mean over every order that the scores allow."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return float(np.mean([labels[list(order[:k])].mean() for order in orders]))


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_metrics_are_those_of_the_slow_references(rows: list[tuple[int, bool]]) -> None:
    scores, labels = arrays(rows)
    if labels.any() and not labels.all():
        assert metrics.auc(scores, labels) == pytest.approx(slow_auc(scores, labels))
        assert metrics.ks(scores, labels) == pytest.approx(slow_ks(scores, labels))
    if labels.any():
        for k in range(1, len(rows) + 1):
            expected = slow_precision(scores, labels, k)
            assert metrics.precision_at(scores, labels, k) == pytest.approx(expected)
        default = slow_precision(scores, labels, int(labels.sum()))
        assert metrics.precision_at(scores, labels) == pytest.approx(default)


@settings(max_examples=30, deadline=None)
@given(pairs)
def test_auc_turns_over_with_the_scores(rows: list[tuple[int, bool]]) -> None:
    scores, labels = arrays(rows)
    if labels.any() and not labels.all():
        both = metrics.auc(scores, labels) + metrics.auc(-scores, labels)
        assert both == pytest.approx(1.0)
        assert metrics.auc(np.exp(scores), labels) == metrics.auc(scores, labels)


def test_equal_scores_are_worth_chance() -> None:
    scores, labels = np.zeros(10), np.arange(10) < 3
    assert metrics.auc(scores, labels) == 0.5
    assert metrics.ks(scores, labels) == 0.0
    assert metrics.precision_at(scores, labels) == pytest.approx(0.3)
    assert metrics.lift_at(scores, labels, 0.2) == pytest.approx(1.0)


def test_perfect_and_reversed_rankings() -> None:
    labels = np.arange(20) < 5
    best = -np.arange(20.0)
    assert metrics.auc(best, labels) == metrics.ks(best, labels) == 1.0
    assert metrics.precision_at(best, labels) == 1.0
    assert metrics.lift_at(best, labels, 0.25) == pytest.approx(4.0)
    assert metrics.auc(-best, labels) == metrics.precision_at(-best, labels) == 0.0


def test_the_best_five_percent_are_at_least_one_user() -> None:
    labels = np.array([True, False, False, False])
    assert metrics.lift_at(np.array([4.0, 3, 2, 1]), labels, 0.05) == pytest.approx(4.0)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_only_has_no_value(label: bool) -> None:
    scores, labels = np.arange(4.0), np.full(4, label)
    assert math.isnan(metrics.auc(scores, labels)) and math.isnan(metrics.ks(scores, labels))
    if not label:
        assert math.isnan(metrics.precision_at(scores, labels))
        assert math.isnan(metrics.precision_at(scores, labels, 2))
        assert math.isnan(metrics.lift_at(scores, labels, 0.5))


def test_more_places_than_users_is_everybody() -> None:
    labels = np.array([True, False])
    assert metrics.precision_at(np.array([1.0, 2.0]), labels, 10) == 0.5


def test_the_mean_leaves_out_what_has_no_value() -> None:
    assert metrics.mean([1.0, float("nan"), 3.0]) == 2.0
    assert math.isnan(metrics.mean([])) and math.isnan(metrics.mean([float("nan")]))


def slow_places(own: float, others: list[int]) -> list[int]:
    """Every place of an item among others that scores allow, one per order of the ties."""
    above, tied = sum(o > own for o in others), sum(o == own for o in others)
    return list(range(above + 1, above + tied + 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(1, 9))
def test_places_are_those_of_the_slow_reference(own: int, others: list[int], k: int) -> None:
    places = metrics.Places.among(np.array([float(own)]), np.array([others], float))
    slow = slow_places(own, others)
    assert places.hit_rate(k)[0] == pytest.approx(np.mean([p <= k for p in slow]))
    gains = [1 / math.log2(1 + p) if p <= k else 0.0 for p in slow]
    assert places.ndcg(k)[0] == pytest.approx(np.mean(gains))
    assert places.reciprocal()[0] == pytest.approx(np.mean([1 / p for p in slow]))


def test_places_count_only_candidates_and_may_be_none() -> None:
    others = np.array([[0.9, np.nan, 0.1], [np.nan] * 3])
    places = metrics.Places.among(np.array([0.5, 0.5]), others)
    assert places.reciprocal().tolist() == [0.5, 1.0]
    nobody = metrics.Places.among(np.zeros(0), np.zeros((0, 3)))
    assert nobody.ndcg(10).size == nobody.hit_rate(10).size == nobody.reciprocal().size == 0


def test_equal_items_are_worth_chance() -> None:
    places = metrics.Places.among(np.zeros(3), np.zeros((3, 99)))
    assert places.hit_rate(10) == pytest.approx(0.1)
    assert places.reciprocal() == pytest.approx(sum(1 / p for p in range(1, 101)) / 100)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_the_threshold_has_the_best_f1_of_all(rows: list[tuple[int, bool]]) -> None:
    scores, labels = arrays(rows)
    if labels.any():
        best = max(metrics.f1(scores, labels, t) for t in scores)
        at = metrics.best_threshold(scores, labels)
        said = scores >= at
        right = [(s >= at) == y for s, y in zip(scores, labels, strict=True)]
        both = (said & labels).sum()
        assert metrics.f1(scores, labels, at) == pytest.approx(best)
        expected = 2 * both / (2 * both + (said & ~labels).sum() + (~said & labels).sum())
        assert metrics.f1(scores, labels, at) == pytest.approx(expected)
        assert metrics.accuracy(scores, labels, at) == pytest.approx(np.mean(right))


def test_without_positives_nobody_is_said_to_be_one() -> None:
    scores, labels = np.arange(3.0), np.zeros(3, bool)
    threshold = metrics.best_threshold(scores, labels)
    assert metrics.accuracy(scores, labels, threshold) == 1.0
    assert math.isnan(metrics.f1(scores, labels, threshold))
    assert math.isnan(metrics.accuracy(scores[:0], labels[:0], 0.0))
