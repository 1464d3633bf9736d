"""Linear probes: they find what is there, only that, and the same at any scale."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ray_jobs.probes import probe
from ray_jobs.protocol import Task

N, DIM = 400, 8
USERS = [f"u{n}" for n in range(N)]


def vectors(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N, DIM)).astype(np.float32)


def task(labels: np.ndarray, group: str = "A", users: list[str] | None = None) -> Task:
    return Task(group, "t", None, np.array(users or USERS, object), labels)


def test_a_planted_direction_is_found_and_noise_is_not() -> None:
    x = vectors()
    rng = np.random.default_rng(1)
    planted = x @ np.arange(DIM) + rng.standard_normal(N) > 0
    noise = rng.random(N) < 0.3
    found = probe(x, USERS, [task(planted), task(noise, "B")], splits=3)
    assert found["A"]["auc"] > 0.9 and found["A"]["ks"] > 0.6
    assert found["B"]["auc"] == pytest.approx(0.5, abs=0.08)
    assert (found["A"]["tasks"], found["B"]["tasks"]) == (1, 1)


def test_groups_are_averaged_over_their_tasks() -> None:
    x = vectors()
    tasks = [task(x[:, 0] > 0), task(x[:, 1] + x[:, 2] ** 2 > 0.5)]
    both = probe(x, USERS, tasks, splits=2)["A"]
    each = [probe(x, USERS, [one], splits=2)["A"] for one in tasks]
    assert both["tasks"] == 2
    assert both["auc"] == pytest.approx(np.mean([one["auc"] for one in each]))


def test_scale_and_offset_do_not_matter_and_a_rerun_repeats() -> None:
    x = vectors()
    tasks = [task(x[:, 0] + 0.5 * vectors(1)[:, 0] > 0)]
    plain = probe(x, USERS, tasks, splits=2)
    assert probe(x, USERS, tasks, splits=2) == plain
    moved = probe(x.astype(np.float64) * 1_000 + 7, USERS, tasks, splits=2)
    assert moved["A"]["auc"] == pytest.approx(plain["A"]["auc"], abs=0.01)


def test_it_judges_users_it_was_not_fitted_on() -> None:
    """One dimension per user: whoever scores the users of the fit would see a perfect probe."""
    identity = np.eye(N, dtype=np.float32)
    labels = np.random.default_rng(2).random(N) < 0.5
    assert probe(identity, USERS, [task(labels)], splits=2)["A"]["auc"] == pytest.approx(
        0.5, abs=0.1
    )


def test_a_user_without_a_vector_counts_as_the_mean() -> None:
    x = vectors()
    strangers = [f"new{n}" for n in range(100)]
    labels = np.concatenate([x[:, 0] > 0, np.arange(100) % 2 == 0])
    mixed = probe(x, USERS, [task(labels, users=USERS + strangers)], splits=2)
    pure = probe(x, USERS, [task(x[:, 0] > 0)], splits=2)
    assert 0.6 < mixed["A"]["auc"] < pure["A"]["auc"]


@pytest.mark.parametrize("positives", [0, 1, 4, N])
def test_a_task_with_too_few_of_a_class_does_not_end_the_report(positives: int) -> None:
    """metrics.py: a task without positives, or without negatives, has no value."""
    x = vectors()
    few = task(np.arange(N) < positives, "B")
    found = probe(x, USERS, [task(x[:, 0] > 0), few], splits=2)
    assert found["A"]["auc"] > 0.9
    assert math.isnan(found["B"]["auc"]) or 0 <= found["B"]["auc"] <= 1


def test_equal_vectors_know_nothing() -> None:
    labels = np.arange(N) % 3 == 0
    found = probe(np.ones((N, DIM), np.float32), USERS, [task(labels)], splits=2)
    assert found["A"]["auc"] == pytest.approx(0.5)
