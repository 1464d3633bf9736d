"""Models over tasks: figures, cold and heavy users, differences with intervals, costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from feature_repo.errors import InputError
from ray_jobs import metrics
from ray_jobs.downstream import Binary, Fitting, Recommendation, Split
from ray_jobs.evaluation.bootstrap import Resamples
from ray_jobs.evaluation.results import plain
from ray_jobs.one4all import compare, cost, logs
from ray_jobs.one4all.compare import World
from ray_jobs.one4all.tasks import Downstream, Tasks

FAST = Fitting(learning_rates=(3e-3,), batch_size=32, epochs=4, patience=2)


@pytest.fixture(scope="module")
def world(receipts: Any, protocol: Any, lines: Any) -> World:
    """Embeddings whose first coordinate is the taste."""
    opened = protocol(receipts)
    users = [str(user) for user in opened.everyone]
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(users), 6)).astype(np.float32)
    vectors[:, 0] += 4 * (np.arange(len(users)) % 2)
    return World(users, vectors, logs.purchases(opened.con, opened.cutoff, users, length=8), lines)


@pytest.fixture(scope="module")
def tasks(receipts: Any, protocol: Any, lines: Any) -> Tasks:
    return Tasks(protocol(receipts), lines, length=8)


def test_every_model_meets_its_tasks(world: World, tasks: Tasks) -> None:
    first, basket = tasks.first_purchase("DELI"), tasks.next_basket()
    assert list(world.models(first)) == ["U-MLP", "P-Trans", "UP-Trans"]
    assert list(world.models(basket)) == ["U-MLP", "P-Trans", "UP-Trans", "T-Trans"]
    for task in (first, basket):
        inputs = world.inputs(task)
        for name, build in world.models(task).items():
            found = plain(compare.run(task, name, build, inputs, replace(FAST, epochs=1), 1))
            assert abs(len(found["repeats"][0]["test"]) - len(task.users) / 5) < 1
            assert set(compare.means(found)) == set(
                compare.BINARY if task is first else compare.RECOMMENDATION
            )


def test_taste_in_the_embedding_is_found_and_told_apart_from_noise(
    world: World, tasks: Tasks
) -> None:
    basket = tasks.next_basket()
    wide = replace(FAST, epochs=20, patience=20, learning_rates=(1e-3, 1e-2))
    rng = np.random.default_rng(5)
    noise = replace(world, vectors_NU=rng.normal(size=(72, 6)).astype(np.float32))
    ours, theirs = (
        plain(compare.run(basket, "U-MLP", here.models(basket)["U-MLP"], here.inputs(basket), wide,
                          3))
        for here in (world, noise)
    )  # fmt: skip
    assert set(ours["tried"]) == {"0.001", "0.01"} and len(ours["repeats"]) == 3
    row = compare.against(basket, ours, theirs, Resamples(list(basket.users)))
    assert row["mean"] > 0 and row["verdict"] == "win"
    back = compare.against(basket, theirs, ours, Resamples(list(basket.users)))
    assert back["verdict"] == "loss" and back["mean"] == pytest.approx(-row["mean"])


def test_the_difference_is_that_of_the_figures() -> None:
    labels = np.arange(40) % 2 == 0
    task = Downstream("targeting", "x", np.arange(40).astype(str).astype(object), Binary(labels))
    rng = np.random.default_rng(0)
    results = []
    for strength in (2.0, 0.5):
        scores = strength * labels + rng.normal(size=40)
        rows = [np.arange(20), np.arange(20, 40)]
        results.append({"repeats": [{"test": r, "scores": scores[r]} for r in rows]})
    each = [
        np.mean([metrics.auc(one["scores"], labels[one["test"]]) for one in result["repeats"]])
        for result in results
    ]
    row = compare.against(task, *results, Resamples(list(task.users), num=4000))
    assert row["mean"] == pytest.approx(each[0] - each[1], abs=0.02)
    same = compare.against(task, results[0], results[0], Resamples(list(task.users)))
    assert same == {"mean": 0.0, "low": 0.0, "high": 0.0, "verdict": "tie"}


def test_cold_and_heavy_are_the_tenths_of_the_tasks_own_log() -> None:
    lengths = np.array([0, 0, *range(1, 18), 99])
    users = np.arange(20).astype(str).astype(object)
    log = logs.LogTable(None, lengths, (), (), [])  # type: ignore[arg-type]
    taken = np.ones((20, 2), bool)
    task = Downstream("recommendation", "x", users, Recommendation(taken, torch.zeros(2, 3)), log)
    values = {name: np.arange(20.0) for name in compare.RECOMMENDATION}
    found = compare.extremes(task, {"repeats": [{"test": np.arange(20), "each": values}]})
    assert found["cold"]["users"] == 3 and found["cold"]["longest"] == 1  # 0, 0 and 1
    assert found["cold"]["ndcg"] == pytest.approx(1.0)
    assert found["heavy"]["users"] == 3 and found["heavy"]["shortest"] == 16
    assert found["heavy"]["mrr"] == pytest.approx(18.0)


def test_popularity_knows_the_training_users_alone(tasks: Tasks) -> None:
    basket = tasks.next_basket()
    assert isinstance(basket.objective, Recommendation)
    split = Split.draw(basket.groups, 0)
    before = basket.objective.popularity(split.train)
    taken = basket.objective.taken_NM.copy()
    taken[split.test] = ~taken[split.test]
    assert torch.equal(replace(basket.objective, taken_NM=taken).popularity(split.train), before)
    most = basket.objective.taken_NM[split.train].sum(0).argmax()
    assert int(before.argmax()) == most
    assert compare.popular(basket, 1)["repeats"][0]["figures"]["hr"] > 0


def test_who_has_no_embedding_is_named(world: World, tasks: Tasks) -> None:
    fewer = replace(world, users=world.users[1:])
    with pytest.raises(InputError, match="1 of 60 users of 'next basket' have no embedding"):
        fewer.inputs(tasks.next_basket())


def test_costs_are_measured_in_one_run(world: World, tasks: Tasks) -> None:
    found = cost.measure(world, tasks.first_purchase("DELI"), seconds=0.05)
    assert set(found) == {"P-Trans", "U-MLP"}
    assert min(row["speedup"] for row in found.values()) == 1.0
    assert found["U-MLP"]["speedup"] > 1 and found["U-MLP"]["bytes_per_user"] == 6 * 4
    assert found["U-MLP"]["parameters"] == sum(
        p.numel() for p in world.models(tasks.first_purchase("DELI"))["U-MLP"](1).parameters()
    )
