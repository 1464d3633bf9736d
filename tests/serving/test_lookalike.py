"""Users like the seeds, and how far a demand reaches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from encoders.lookalike import FEWEST, lookalike_query
from feature_repo.errors import InputError
from sdk.reaching import LookalikeRequest, ReachRequest
from sdk.types import TargetRequest
from serving.targeting import Targeting

TEXT = "households that will buy diapers"


@pytest.fixture
def targeting(world: Any) -> Targeting:
    world.publish(1, live=True)
    return Targeting(world.live(), None)


def test_fishers_direction_tells_groups_apart_where_the_centroid_fails() -> None:
    """Two groups that differ in a quiet coordinate, beside a loud one that means nothing."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(2_000, 8)) * np.array([30, 1, 1, 1, 1, 1, 1, 1])
    group = np.arange(2_000) < 200
    vectors[group, 1] += 3
    seeds = np.flatnonzero(group)[:20]

    def found(power: float) -> float:
        scores = vectors @ lookalike_query(vectors[seeds], vectors, power=power)
        scores[seeds] = -np.inf
        return float(group[np.argsort(-scores)[:180]].mean())

    assert found(1.0) > 0.7 > 0.3 > found(0.0)
    query = lookalike_query(vectors[seeds], vectors)
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-6)
    moved = lookalike_query(vectors[seeds] + 7, vectors + 7)
    np.testing.assert_allclose(query, moved, atol=1e-5)
    with pytest.raises(ValueError, match=r"seeds: expected \[S, 8\]"):
        lookalike_query(vectors[:0], vectors)


def test_lookalikes_are_ranked_by_the_seeds_and_leave_them_out(targeting: Targeting) -> None:
    matrix = targeting.live.get().matrices["fused"]
    seeds = matrix.ids[:FEWEST]
    found = targeting.lookalike(LookalikeRequest(seeds=seeds, size=8))
    query = lookalike_query(matrix.vectors[:FEWEST], matrix.vectors)
    allowed = ~np.isin(matrix.ids, seeds)
    assert found.user_ids == matrix.scan(query, 8, allowed=allowed)[0]
    assert found.meta.notes[0] == f"Ranked by likeness to {FEWEST} seed users."
    whole = targeting.lookalike(LookalikeRequest(seeds=seeds, size=40, with_seeds=True))
    assert len(whole.user_ids) == 40


def test_too_few_seeds_fall_back_on_the_sentence_and_say_so(targeting: Targeting) -> None:
    found = targeting.lookalike(LookalikeRequest(seeds=["u1"], text=TEXT, size=5, with_seeds=True))
    assert found.user_ids == targeting.target(TargetRequest(text=TEXT, size=5)).user_ids
    assert "1 seed users are too few" in found.meta.notes[0]
    with pytest.raises(InputError, match="seeds: expected at least 10 users, got 1"):
        targeting.lookalike(LookalikeRequest(seeds=["u1"]))
    with pytest.raises(InputError, match="seeds: expected users of snapshot"):
        targeting.lookalike(LookalikeRequest(seeds=["nobody"], text=TEXT))


def test_reach_counts_everybody_eligible_once(targeting: Targeting) -> None:
    rules = {"type": "not", "rule": {"type": "users", "ids": ["u1", "u2"]}}
    found = targeting.reach(ReachRequest(text=TEXT, rules=rules, bins=7))
    audience = targeting.target(TargetRequest(text=TEXT, rules=rules, size=40))
    assert (found.population, found.eligible) == (40, 38)
    assert sum(found.counts) == 38 and len(found.edges) == 8
    assert [point.size for point in found.points] == [1, 2, 5, 10, 20, 38]
    for point in found.points:
        assert point.min_score == audience.scores[point.size - 1]
        assert point.expected_buyers is None and point.share == point.size / 40
    assert (found.base_rate, found.useful_size) == (None, None)


def test_reach_with_a_calibration_has_precision_and_a_useful_size(world: Any) -> None:
    class Ladder:
        def __init__(self, scores: np.ndarray) -> None:
            self.probabilities = np.argsort(np.argsort(scores)) / 40

        def buyers(self, rows: np.ndarray) -> tuple[float, float, float]:
            return float(self.probabilities[rows].sum()), 0.0, 40.0

    world.publish(1, live=True)
    calibrate = {"fused": lambda text, query, scores: Ladder(scores)}
    opener = replace(world.live()._opener, calibrators=lambda workspace, manifest: calibrate)
    found = Targeting(world.live(opener), None).reach(ReachRequest(text=TEXT))
    assert found.base_rate == pytest.approx(39 / 80) and found.useful_size == 20
    precisions = [point.precision for point in found.points]
    assert precisions == sorted(precisions, reverse=True)
    assert found.points[-1].lift == pytest.approx(1.0)
    assert found.points[0].expected_buyers == pytest.approx(39 / 40)
