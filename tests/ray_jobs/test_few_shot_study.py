"""The few-shot study: its seeds, its ranking without them, and its paired intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.prompt import TuneConfig
from encoders.query import QueryEncoder
from encoders.rewriting import Reading, as_it_stands
from ray_jobs import few_shot_study, metrics
from ray_jobs.few_shot_methods import Demand, Seeds, centroid, logistic, u_mlp
from ray_jobs.few_shot_study import (
    Ranked,
    draw,
    rank,
    resampled,
    seed_map,
    study,
    summary,
    to_markdown,
)
from ray_jobs.protocol import Task

N, D = 300, 6


class Sentences:
    """A model whose sentences look at coordinate 0 or 1; it is tuned by the posterior alone."""

    dim, scale = D, 1.0
    base_rate = None

    class text:
        embedding_width = 4

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(D)[[int("one" in text) for text in texts]]


BY_NAME = Demand("will buy tea", as_it_stands("will buy tea"))
IN_DOUBT = Demand("a drink", Reading((("will buy tea", 0.5), ("one", 0.5))))
ASTRAY = Demand("leaves", Reading((("one", 1.0),)))


@pytest.fixture
def users() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


@pytest.fixture
def tasks(users: np.ndarray) -> list[Task]:
    """What people do depends on coordinates 0 and 1, the sentence knows half of it."""
    ids = np.array([f"u{n}" for n in range(N)], object)
    likely = users[:, 0] + users[:, 1] > 0.8
    part = np.arange(0, N, 2)
    return [
        Task("A", "tea", "will buy tea", ids, likely),
        Task("B", "tea", "will buy tea", ids[part], likely[part]),
    ]


def fast() -> dict[str, Any]:
    def sentence(demand: Demand, x: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        return np.tile(x[:, int(demand is ASTRAY)], (len(draws), 1))

    def better(demand: Demand, x: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        return np.tile(x[:, 0] + x[:, 1], (len(draws), 1))

    return {"sentence": sentence, "ours": better}


def ranked(users: np.ndarray, tasks: list[Task], **more: Any) -> Ranked:
    rows = [np.array([int(u[1:]) for u in task.users]) for task in tasks]
    options = {"seeds": 10, "draws": 3, "asked": [[BY_NAME]] * len(tasks), **more}
    return rank(fast(), [users[r] for r in rows], rows, tasks, **options)


# --- seeds


def test_seeds_are_drawn_from_their_class_and_again_the_same() -> None:
    labels = np.arange(50) % 5 == 0
    seeds = draw(labels, (3, 1), seeds=9)
    assert len(seeds.positives) == 5 and len(seeds.negatives) == 4
    assert labels[seeds.positives].all() and not labels[seeds.negatives].any()
    assert len(set(seeds.all.tolist())) == 9
    assert draw(labels, (3, 1), seeds=9).all.tolist() == seeds.all.tolist()
    assert draw(labels, (4, 1), seeds=9).all.tolist() != seeds.all.tolist()
    assert seeds.labels.tolist() == [1] * 5 + [0] * 4


def test_hard_negatives_score_highest_among_those_who_did_not() -> None:
    labels = np.arange(1000) >= 900
    seeds = draw(labels, (0, 0), seeds=10, hard_scores=np.arange(1000.0))
    assert seeds.negatives.min() >= 800 and seeds.negatives.max() < 900


# --- ranking


def test_seeds_are_left_out_of_the_ranking(users: np.ndarray, tasks: list[Task]) -> None:
    found = ranked(users, tasks)
    for task, number in zip(tasks, range(2), strict=True):
        for one in range(3):
            seeds = draw(task.labels, (one, number), seeds=10)
            left = found.users[number][one]
            assert len(left) == len(task.users) - 10
            rows = np.array([int(u[1:]) for u in task.users])
            assert not set(rows[seeds.all]) & set(left)
            np.testing.assert_array_equal(found.scores["sentence"][number][one], users[left, 0])
            assert found.labels[number][one].sum() == task.labels.sum() - 5


def test_tasks_with_too_few_positives_are_left_out(users: np.ndarray, tasks: list[Task]) -> None:
    few = int(tasks[1].labels.sum()) + 1
    assert ranked(users, tasks, seeds=few).groups == ["A"]


def test_draws_take_the_wordings_in_turn(users: np.ndarray, tasks: list[Task]) -> None:
    found = ranked(users, tasks, asked=[[BY_NAME, ASTRAY]] * 2, draws=3)
    for one, coordinate in enumerate((0, 1, 0)):
        expected = users[found.users[0][one], coordinate]
        np.testing.assert_array_equal(found.scores["sentence"][0][one], expected)


# --- intervals


def test_the_first_replicate_is_the_plain_precision(users: np.ndarray, tasks: list[Task]) -> None:
    found = ranked(users, tasks)
    for name, values in resampled(found, rounds=3).items():
        plain = [
            metrics.precision_at(s, y)
            for by_task, labels in zip(found.scores[name], found.labels, strict=True)
            for s, y in zip(by_task, labels, strict=True)
        ]
        assert values[0] == pytest.approx(np.mean(plain), abs=1e-6)


def test_a_better_method_wins_and_an_equal_one_does_not(
    users: np.ndarray, tasks: list[Task]
) -> None:
    found = ranked(users, tasks)
    gain = summary(found)["sentence"]["ours minus this"]
    assert gain["low"] > 0.0 and gain["low"] < gain["precision"] < gain["high"]
    found.scores["ours"][:] = found.scores["sentence"]
    assert summary(found)["sentence"]["ours minus this"] == {
        "precision": 0.0, "low": 0.0, "high": 0.0,
    }  # fmt: skip


def test_random_scores_find_the_base_rate(users: np.ndarray, tasks: list[Task]) -> None:
    found = ranked(users, tasks, draws=20)
    rng = np.random.default_rng(1)
    found.scores["ours"][0] = [rng.random(len(s)) for s in found.scores["ours"][0]]
    cells = summary(found, intervals=False)["ours"]["A"]
    assert cells["auc"] == pytest.approx(0.5, abs=0.03)
    assert cells["precision"] == pytest.approx(tasks[0].labels.mean(), abs=0.04)


# --- baselines, and the whole


@pytest.mark.parametrize("fit", [u_mlp, logistic, centroid])
def test_every_baseline_learns_from_seeds_and_repeats(
    fit: Any, users: np.ndarray, tasks: list[Task]
) -> None:
    seeds = draw(tasks[0].labels, (0, 0), seeds=60)
    scores = fit(users, seeds)
    np.testing.assert_array_equal(scores, fit(users, seeds))
    rest = np.setdiff1d(np.arange(N), seeds.all)
    assert metrics.auc(scores[rest], tasks[0].labels[rest]) > 0.8


def test_the_whole_study(
    users: np.ndarray, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = few_shot_study.methods

    def without_tokens(*args: Any, **options: Any) -> dict[str, Any]:
        found = everything(*args, **options)
        return {n: m for n, m in found.items() if not n.startswith("prompt tokens")}

    monkeypatch.setattr(few_shot_study, "methods", without_tokens)
    ids = [f"u{n}" for n in range(N)]
    model: Any = Sentences()
    encoder = QueryEncoder(model, None)  # type: ignore[arg-type]
    asked = [[IN_DOUBT, ASTRAY]] * 2
    report = study(encoder, users, ids, tasks, asked, draws=2)
    assert list(report["ten"])[:2] == ["sentence", "ours"]
    assert set(report["ten"]) == set(report["hard"]) == set(report["curve"]["25"])
    assert report == study(encoder, users, ids, tasks, asked, draws=2)
    text = "\n".join(to_markdown({"tasks": 2, "draws": 2, "paraphrase": report}))
    for name in report["ten"]:
        assert f"| {name} | 0." in text
    assert "| method | 5 | 10 | 25 | 100 |" in text
    assert "## Hard negatives, in other words, as they are read" in text
    posterior = TuneConfig()
    monkeypatch.setattr(few_shot_study, "TuneConfig", lambda **_: posterior)
    assert seed_map(model, users, ids, tasks[0], tmp_path / "map.png").stat().st_size > 10_000


def test_the_map_names_everybody_in_full() -> None:
    labels, negatives = np.array([True, False, False, False]), np.array([2])
    assert few_shot_study.kinds(labels, negatives) == [
        "did it", "did not", "hard negative", "did not",
    ]  # fmt: skip
