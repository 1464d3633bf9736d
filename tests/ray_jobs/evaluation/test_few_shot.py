"""Seed users: who they are, rankings without them, paired intervals, and the methods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from encoders.query import QueryEncoder
from encoders.rewriting import Reading
from ray_jobs import metrics
from ray_jobs.evaluation import few_shot
from ray_jobs.evaluation.few_shot import COUNTS, Ground, Trial, draw, measure, summary, trials
from ray_jobs.evaluation.few_shot_methods import (
    BY_TOKENS,
    OURS,
    QUICK,
    SENTENCE,
    Demand,
    Seeds,
    centroid,
    logistic,
    u_mlp,
)
from ray_jobs.protocol import Task

N, D = 300, 6
BY_NAME, HARD = Trial("name", 5), Trial("name", 5, hard=True)
READINGS = {"a drink": (("will buy tea", 0.5), ("one", 0.5)), "leaves": (("one", 1.0),)}


class Sentences:
    """A model whose sentences look at coordinate 0 or 1; it is tuned by the posterior alone."""

    dim, scale = D, 1.0
    base_rate = None

    class text:
        embedding_width = 4

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(D)[[int("one" in text) for text in texts]]


class Rewriter:
    """Reads one demand in doubt and one astray."""

    def read(self, demand: str) -> Reading:
        return Reading(READINGS[demand])

    def vocabulary(self) -> list[str]:
        return []


@pytest.fixture
def ground() -> Ground:
    """What people do depends on coordinates 0 and 1, the sentence knows half of it."""
    users = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
    ids = np.array([f"u{n}" for n in range(N)], object)
    likely = users[:, 0] + users[:, 1] > 0.8
    part = np.arange(0, N, 2)
    tasks = [
        Task("A", "tea", "will buy tea", ids, likely),
        Task("B", "tea", "will buy tea", ids[part], likely[part]),
    ]
    model: Any = Sentences()
    encoder = QueryEncoder(model, None, Rewriter())  # type: ignore[arg-type]
    written = {"tea": ["a drink", "leaves"]}
    return Ground(encoder, users, list(ids), tasks, written, {"A tea": 0.3, "B tea": 0.2})


def with_methods(ground: Ground, **given: Any) -> Ground:
    """The ground with methods of the test's own, beside a sentence that looks at coordinate 0."""

    def sentence(demand: Demand, x: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        return np.tile(x[:, int(demand.text == "leaves")], (len(draws), 1))

    changed = replace(ground)
    changed.__dict__["methods"] = {SENTENCE: sentence, **given}
    return changed


# --- trials and seeds


def test_the_curve_and_hard_negatives_are_asked_in_both_wordings() -> None:
    listed = trials()
    assert [t.seeds for t in listed if t.wording == "name"] == [*COUNTS, 5]
    assert len(listed) == len({t.name for t in listed}) == 10
    assert [t.wording for t in listed if t.hard] == ["name", "paraphrase"]
    assert [t.num_draws(9) for t in listed[:3]] == [9, 4, 4] and HARD.num_draws(9) == 9
    assert listed[1].num_draws(1) == 1


def test_seeds_are_drawn_from_their_class_and_again_the_same() -> None:
    labels = np.arange(50) % 5 == 0
    seeds = draw(labels, (3, 1), 5)
    assert len(seeds.positives) == 5 and len(seeds.negatives) == 5
    assert labels[seeds.positives].all() and not labels[seeds.negatives].any()
    assert len(set(seeds.all.tolist())) == 10
    assert draw(labels, (3, 1), 5).all.tolist() == seeds.all.tolist()
    assert draw(labels, (4, 1), 5).all.tolist() != seeds.all.tolist()
    assert seeds.labels.tolist() == [1] * 5 + [0] * 5


def test_hard_negatives_score_highest_among_those_who_did_not() -> None:
    labels = np.arange(1000) >= 900
    seeds = draw(labels, (0, 0), 5, hard_scores=np.arange(1000.0))
    assert seeds.negatives.min() >= 800 and seeds.negatives.max() < 900


def test_hard_negatives_are_hard_by_the_demand_that_the_draw_asks(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_shot, "HARD_POOL", 10)
    seen: list[np.ndarray] = []

    def looks(demand: Demand, x: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        seen.extend(x[seeds.negatives, int(demand.text == "leaves")] for seeds in draws)
        return np.zeros((len(draws), len(x)))

    for wording in ("name", "paraphrase"):
        for hard in (True, False):
            seen.clear()
            measure(with_methods(ground, looks=looks), Trial(wording, 5, hard), "looks", 4)
            assert len(seen) == 8 and (np.mean(seen) > 0.8) == hard


# --- ranking


def test_seeds_are_left_out_of_the_ranking(ground: Ground) -> None:
    def remembers(demand: Demand, x: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        scores = np.zeros((len(draws), len(x)))
        for row, seeds in zip(scores, draws, strict=True):
            row[seeds.positives], row[seeds.negatives] = 1, -1
        return scores

    rows = measure(with_methods(ground, remembers=remembers), BY_NAME, "remembers", 3)["rows"]
    assert [(row["group"], row["auc"]) for row in rows] == [("A", 0.5), ("B", 0.5)]


def test_a_task_counts_while_half_of_its_positives_remain(ground: Ground) -> None:
    few = int(ground.tasks[1].labels.sum()) // 2 + 1
    rows = measure(with_methods(ground), Trial("name", few), SENTENCE, 1)["rows"]
    assert [row["group"] for row in rows] == ["A"]
    assert len(measure(with_methods(ground), Trial("name", few - 1), SENTENCE, 1)["rows"]) == 2


def test_draws_take_the_wordings_in_turn(ground: Ground) -> None:
    asked: list[tuple[str, int]] = []

    def listens(demand: Demand, x: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        asked.append((demand.text, len(draws)))
        return np.zeros((len(draws), len(x)))

    measure(with_methods(ground, listens=listens), Trial("paraphrase", 5), "listens", 3)
    assert asked == [("a drink", 2), ("leaves", 1)] * 2
    nobody_wrote = with_methods(replace(ground, written={}), listens=listens)
    assert measure(nobody_wrote, Trial("paraphrase", 5), "listens", 3)["rows"] == []


def test_a_trial_that_no_task_bears_has_nothing_to_show(ground: Ground) -> None:
    nothing = measure(with_methods(ground), Trial("name", N), SENTENCE, 1)
    assert summary({SENTENCE: nothing}, nothing) == {SENTENCE: {}}


def test_the_threshold_is_the_earlier_rate(ground: Ground) -> None:
    (row, _) = measure(with_methods(ground), BY_NAME, SENTENCE, 2)["rows"]
    left, positives = N - 10, ground.tasks[0].labels.sum() - 5
    chosen = round(0.3 * left)
    assert row["recall"] * positives == pytest.approx(row["precision"] * chosen)
    unknown = with_methods(replace(ground, rates={}))
    assert np.isnan(measure(unknown, BY_NAME, SENTENCE, 2)["rows"][0]["accuracy"])


# --- differences


def both(x: Any) -> Any:
    """A method that scores by ``x`` of the users' vectors."""
    return lambda demand, users, draws: np.tile(x(users), (len(draws), 1))


def told(ground: Ground, ours: Any) -> dict[str, Any]:
    ground = with_methods(ground, ours=ours)
    measured = {name: measure(ground, BY_NAME, name, 3) for name in (SENTENCE, OURS)}
    return summary(measured, measured[OURS])


def test_a_better_method_wins_and_an_equal_one_does_not(ground: Ground) -> None:
    found = told(ground, both(lambda x: x[:, 0] + x[:, 1]))
    assert list(found) == [SENTENCE, OURS] and "ours minus this" not in found[OURS]
    gain = found[SENTENCE]["ours minus this"]
    assert set(gain) == {"A", "B", "all"}
    for figure in ("precision_at_k", "auc"):
        assert 0.0 < gain["all"][figure]["low"] < gain["all"][figure]["mean"]
        ahead = found[OURS]["A"][figure] - found[SENTENCE]["A"][figure]
        assert gain["A"][figure]["mean"] == pytest.approx(ahead)
        mean = (gain["A"][figure]["mean"] + gain["B"][figure]["mean"]) / 2
        assert gain["all"][figure]["mean"] == pytest.approx(mean)
    level = told(ground, both(lambda x: x[:, 0]))[SENTENCE]["ours minus this"]["all"]["auc"]
    assert level == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_random_scores_find_the_base_rate(ground: Ground) -> None:
    rng = np.random.default_rng(1)

    def luck(demand: Demand, users: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        return rng.random((len(draws), len(users)))

    row = measure(with_methods(ground, luck=luck), BY_NAME, "luck", 20)["rows"][0]
    assert row["auc"] == pytest.approx(0.5, abs=0.03)
    assert row["precision_at_k"] == pytest.approx(ground.tasks[0].labels.mean(), abs=0.04)


# --- methods


@pytest.mark.parametrize("fit", [u_mlp, logistic, centroid])
def test_every_baseline_learns_from_seeds_and_repeats(fit: Any, ground: Ground) -> None:
    labels, users = ground.tasks[0].labels, ground.vectors_UD
    seeds = draw(labels, (0, 0), 30)
    scores = fit(users, seeds)
    np.testing.assert_array_equal(scores, fit(users, seeds))
    rest = np.setdiff1d(np.arange(N), seeds.all)
    assert metrics.auc(scores[rest], labels[rest]) > 0.8


def test_seeds_settle_what_a_demand_in_doubt_means(ground: Ground) -> None:
    assert tuple(ground.methods) == (*QUICK, *BY_TOKENS)
    alone = replace(ground, written={"tea": ["leaves", "a drink"]})
    found = {name: measure(alone, Trial("paraphrase", 5), name, 4)["rows"][0] for name in QUICK}
    assert found[OURS]["auc"] > 0.7
    again = measure(alone, Trial("paraphrase", 5), OURS, 4)["rows"][0]
    assert again == found[OURS]
    assert all(0.5 < row["auc"] < 1 for row in found.values())


def test_a_figure_nobody_could_measure_is_a_gap(ground: Ground) -> None:
    """Results come back from disk, where there is no NaN."""
    measured = measure(with_methods(replace(ground, rates={})), BY_NAME, SENTENCE, 1)
    for row in measured["rows"]:
        row["accuracy"] = None
    assert np.isnan(summary({SENTENCE: measured}, measured)[SENTENCE]["A"]["accuracy"])
    assert few_shot.FEW == 5
