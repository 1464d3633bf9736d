"""Figures of a ranking by hand, thresholds from an earlier period, and what a table holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from ray_jobs.evaluation import demands, report, zero_shot
from ray_jobs.evaluation.bootstrap import Resamples
from ray_jobs.evaluation.history import Receipts
from ray_jobs.evaluation.methods import chance
from ray_jobs.evaluation.subject import EARLIER
from ray_jobs.evaluation.supervised import Supervised
from ray_jobs.evaluation.zero_shot import OURS, Method, at_threshold, figures
from ray_jobs.protocol import CATEGORIES, Protocol, Task

T, DAY = datetime(2017, 9, 11, tzinfo=UTC), timedelta(days=1)
USERS = np.array([f"u{n}" for n in range(100)], object)
LABELS = np.arange(100) < 20  # the first twenty did it


def task(sentence: str = "will buy cheese", group: str = "A", name: str = "CHEESE") -> Task:
    return Task(group, name, sentence, USERS, LABELS)


def perfect(_: Task) -> np.ndarray:
    return -np.arange(100.0)


def test_figures_of_a_perfect_and_of_a_constant_ranking() -> None:
    best = figures(perfect(task()), LABELS, rate=0.1)
    assert best["auc"] == best["ks"] == best["precision_at_k"] == 1.0
    assert (best["precision_10"], best["recall_10"], best["lift_10"]) == (1.0, 0.5, 5.0)
    assert (best["accuracy"], best["precision"], best["recall"]) == (0.9, 1.0, 0.5)
    flat = figures(np.zeros(100), LABELS, rate=0.1)
    assert (flat["auc"], flat["precision_at_k"], flat["lift_5"]) == (0.5, 0.2, 1.0)
    assert flat["accuracy"] == pytest.approx(0.74)  # 2 of 10 right, 18 missed


def test_without_an_earlier_rate_there_is_no_threshold() -> None:
    assert all(np.isnan(v) for v in at_threshold(np.zeros(100), LABELS, float("nan")).values())


def test_rates_come_from_the_earlier_period_only(protocol_at: Callable[..., Protocol]) -> None:
    protocol = protocol_at()
    rates = zero_shot.base_rates(protocol)
    cheese = next(t for t in protocol.purchases() if t.name == "CHEESE")
    assert rates["A CHEESE"] == pytest.approx(cheese.labels.mean())
    assert {name[0] for name in rates} >= {"A", "B", "C", "D"}


def test_early_cut_offs_have_no_threshold_and_leave_out_what_nothing_was_known_for(
    protocol_at: Callable[..., Protocol],
) -> None:
    """The data begin 300 days before T: eight weeks before this cut-off nobody was known."""
    now = protocol_at(T - 260 * DAY)
    rates = zero_shot.base_rates(Protocol(now.con, now.cutoff - EARLIER))
    assert rates == {}
    reference = Supervised(now.con, now.cutoff, Receipts(now.con))
    ways = (Method(OURS, chance, reads=True), Method("LightGBM", reference.score, reads=False))
    asked = demands.demands([*now.purchases(), now.coupon(), *now.behaviours()], {})
    resamples = Resamples([str(user) for user in now.everyone], num=5)
    found = {way.name: zero_shot.measure(way, asked, resamples, rates) for way in ways}
    shown = zero_shot.table(found, "name")
    assert set(shown[OURS]) == {"A", "C", "D"} and set(shown["LightGBM"]) == {"A", "D"}
    told = zero_shot.left_out(found, rates)
    assert told == ["Nobody was known eight weeks before: there is no threshold.",
                    "LightGBM: nothing of C, no outcome of it is known yet."]  # fmt: skip
    page = report.page({
        "snapshot": "s", "source": "x", "households": 60, "synthetic": False, "as_of": "2017",
        "demographics": False, "trained_as_of": "2017", "zero_shot": shown, "against_counts": {},
        "zero_shot_left_out": told,
    })  # fmt: skip
    assert f"| {OURS} | – / – / – |" in page and "nothing of C" in page and "nan" not in page


def test_before_anybody_is_known_every_task_is_empty(protocol_at: Callable[..., Protocol]) -> None:
    tasks = protocol_at(T - 400 * DAY).tasks()
    assert {task.group for task in tasks} == {"A", "C", "D"}
    assert all(len(task.users) == 0 and task.labels.dtype == bool for task in tasks)


def measured(**scores: Any) -> dict[str, Any]:
    asked = demands.demands([task()], {"paraphrase": {"CHEESE": ["cheddar", "brie"]}})
    resamples = Resamples(USERS.tolist(), num=50)
    methods = {name: Method(name, score, reads=name == OURS) for name, score in scores.items()}
    return {
        name: zero_shot.measure(method, asked, resamples, {"A CHEESE": 0.2})
        for name, method in methods.items()
    }


def test_a_paraphrase_is_the_mean_over_its_sentences() -> None:
    def reads_brie_only(asked: Task) -> np.ndarray:
        return perfect(asked) if asked.sentence == "brie" else -perfect(asked)

    found = measured(sentence=reads_brie_only)
    assert zero_shot.table(found, "name")[OURS]["A"]["auc"] == 0.0
    paraphrase = zero_shot.table(found, "paraphrase")[OURS]["A"]
    assert (paraphrase["auc"], paraphrase["tasks"]) == (0.5, 1)


def test_who_reads_no_sentence_is_scored_once_and_stands_in_both_tables() -> None:
    asked: list[str | None] = []

    def counts(told: Task) -> np.ndarray:
        asked.append(told.sentence)
        return perfect(told)

    found = measured(count=counts)
    assert asked == ["will buy cheese"]
    assert [zero_shot.table(found, w)["count"]["A"]["auc"] for w in demands.WORDINGS] == [1, 1]


def test_ours_is_compared_with_the_best_count_of_the_group() -> None:
    def noisy(_: Task) -> np.ndarray:
        return perfect(_) + np.random.default_rng(0).normal(0, 60, 100)

    found = measured(sentence=perfect, poor=lambda t: -perfect(t), fair=noisy)
    against = zero_shot.against_counts(found, ["poor", "fair"], "name")["A"]
    assert against["best count"] == "fair" and 0 < against["low"] < against["mean"]


def test_every_task_with_a_sentence_was_put_into_three_other_wordings() -> None:
    """Written before anything was measured, and without a word of the catalogue's name."""
    written = demands.read("complete-journey")["paraphrase"]
    assert set(CATEGORIES) | {"coupon", "lapse", "top spend", "spend up"} == set(written)
    for name, sentences in written.items():
        assert len(set(sentences)) >= 3
        words = {word for word in name.lower().replace("/", " ").split() if len(word) > 3}
        if name.isupper():
            assert not any(word in text.lower().split() for word in words for text in sentences)


def test_another_data_set_has_no_written_demands() -> None:
    assert demands.read("synthetic") == {"paraphrase": {}, demands.STRICT: {}}
