"""Seeds beside the sentence, on vectors whose structure is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from encoders.lookalike import MANY, POWER, POWER_OF_MANY, power_of
from ray_jobs.evaluation import lookalikes, report
from ray_jobs.protocol import Task

USERS = 400
NAMES = np.array([f"u{n}" for n in range(USERS)], object)


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sixty users of a kind, who lie apart in one quiet coordinate; the sentence knows half."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(USERS, 6)) * np.array([9, 9, 1, 1, 1, 1])
    kind = np.arange(USERS) < 60
    vectors[kind, 3] += 3.0
    rng.shuffle(vectors[60:])
    tasks = [
        Task("A", "CHEESE", "will buy cheese", NAMES, kind),
        Task("A", "RARE", "will buy truffles", NAMES, np.arange(USERS) < 8),
        Task("E", "kids", None, NAMES, kind),
    ]
    known = np.where(np.arange(USERS) < 30, 1.0, 0.0)
    monkeypatch.setattr(lookalikes, "sentence", lambda subject: lambda task: known)
    return SimpleNamespace(vectors=lambda kind: vectors, users=list(NAMES), tasks=tasks)


def test_more_seeds_find_more_and_are_left_out(subject: Any) -> None:
    found = lookalikes.measure(subject, draws=8)
    assert set(found) == {"A"} and set(found["A"]) == {"5", "10", "25"}
    assert [row["tasks"] for row in found["A"].values()] == [1, 1, 1]
    few, some, many = (row["seeds"]["auc"] for row in found["A"].values())
    assert 0.5 < few < some < many
    # Thirty of sixty are known to the sentence, less those among the seeds.
    assert found["A"]["10"]["sentence"]["auc"] == pytest.approx(0.75, abs=0.02)


def test_the_report_shows_both(subject: Any) -> None:
    page = report.page({
        "snapshot": "s", "source": "x", "households": USERS, "synthetic": False,
        "as_of": "2017-09-11", "trained_as_of": "2017-09-11",
        "demographics": False,
        "lookalikes": lookalikes.measure(subject, draws=1),
    })  # fmt: skip
    assert "| group | ranked by | 5 seeds | 10 seeds | 25 seeds |" in page
    assert "| A | sentence | " in page


def test_few_seeds_trust_the_loud_coordinates_more() -> None:
    assert power_of(MANY - 1) == POWER < power_of(MANY) == POWER_OF_MANY
