"""Counts of what a demand is read as: by shares, each subject's count at the same size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from encoders.catalogue import Catalogue, Subject
from encoders.rewriting import Reading
from ray_jobs.evaluation.read_counts import ReadCounts
from ray_jobs.protocol import Task

USERS = np.array(["a", "b", "c", "d"], object)
EVERYONE = Task("A", "", None, USERS, np.zeros(4, bool))
COUNTS = {("A", "BEER"): [0, 0, 0, 400], ("A", "WINE"): [4, 0, 0, 0], ("D", "lapse"): [0, 0, 8, 0]}
CATALOGUE = Catalogue.of(
    [Subject("purchase", name, 2, "GROCERY", 9) for name in ("BEER", "WINE")]
).with_outcomes({"nothing": 3})
READINGS = {
    "a round": (("will buy beer in the next four weeks", 0.25),
                ("will buy wine in the next four weeks", 0.75)),
    "gone": (("will not shop at all in the next two weeks", 1.0),),
    "who knows": (("who knows", 1.0),),
}  # fmt: skip


def scored(demand: str, users: np.ndarray = USERS) -> np.ndarray:
    asked: list[tuple[str, str]] = []

    def count(task: Task) -> np.ndarray:
        asked.append((task.group, task.name))
        return np.array(COUNTS[asked[-1]], float)

    counts = ReadCounts(
        lambda text: Reading(READINGS[text]), CATALOGUE, count, EVERYONE, horizon_days=28
    )
    task = replace(EVERYONE, users=users, sentence=demand)
    found = counts.score(task)
    assert (counts.score(task) == found).all() and len(asked) == len(set(asked)), "counted once"
    return found


def test_shares_weigh_counts_of_the_same_size() -> None:
    found = scored("a round")
    assert found[0] == pytest.approx(3 * found[3]) and not found[1:3].any()


def test_an_outcome_has_the_protocols_own_count_at_any_horizon() -> None:
    assert scored("gone").argmax() == 2


def test_what_no_count_knows_says_nothing() -> None:
    assert not scored("who knows").any()


def test_a_smaller_population_keeps_its_order() -> None:
    assert scored("a round", USERS[[3, 0]]) == pytest.approx(scored("a round")[[3, 0]])
